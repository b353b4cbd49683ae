// Turns any value into bounded, well-formed text. Everything that a function throws, returns or prints passes through
// here, so nothing in this file may throw or depend on globals that the function can replace: they are captured at
// start.

import { ERROR_TEXT_BYTES_MAX, type InvocationError } from "./protocol.ts";

const { inspect } = Bun;
const NativeError = Error;
const NativeString = String;
const byteLength = Buffer.byteLength;
const stringify = JSON.stringify;
const encoder = new TextEncoder();
const encodeInto = encoder.encodeInto.bind(encoder);
const decoder = new TextDecoder();
const decode = decoder.decode.bind(decoder);

/** The shim's own file, whose frames tell the author of a function nothing. One file, because it runs as `dist/entry.js`. */
const shimFile = import.meta.path;

const quiet = { colors: false, depth: 2 };

/** Formats a value as `console.log` does, without colours. */
export function show(value: unknown, options: object = quiet): string {
  try {
    return inspect(value, options);
  } catch {
    return "[a value that cannot be shown]";
  }
}

/** Encodes a text as a JSON string. Lone surrogates become U+FFFD, because strict parsers refuse them. */
export function quote(text: string): string {
  return stringify(text.toWellFormed());
}

/** Cuts a text to at most `bytes` bytes of UTF-8; a cut text ends in a marker with its original length. */
export function cut(text: string, bytes: number): string {
  // A UTF-16 unit takes at most three bytes of UTF-8, so most texts need no count.
  if (text.length * 3 <= bytes) return text;
  const length = byteLength(text);
  if (length <= bytes) return text;
  const marker = `… [cut, ${length} bytes]`;
  const kept = new Uint8Array(bytes - byteLength(marker));
  const { written } = encodeInto(text.slice(0, bytes), kept);
  return decode(kept.subarray(0, written)) + marker;
}

/** Reads a property as text, or undefined: the value may be a proxy, and a getter may throw. */
function read(value: any, key: string): string | undefined {
  try {
    const found = value[key];
    return typeof found === "string" ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the value is an error, or close enough to have a message. */
export function isErrorLike(value: unknown): boolean {
  try {
    return value instanceof NativeError || (typeof value === "object" && value !== null && read(value, "message") !== undefined);
  } catch {
    return false;
  }
}

/** Returns the stack without the shim's own frames, with the chain of causes below it. */
export function stackOf(error: unknown, depth = 0): string | undefined {
  let stack = read(error, "stack");
  if (stack === undefined) return undefined;
  if (stack.includes(shimFile)) {
    let kept = "";
    for (const line of stack.split("\n")) if (!line.includes(shimFile)) kept += (kept && "\n") + line;
    stack = kept;
  }
  let cause: unknown;
  try {
    cause = (error as any).cause;
  } catch {}
  if (cause !== undefined && depth < 4) stack += `\ncaused by: ${stackOf(cause, depth + 1) ?? brief(cause)}`;
  return stack;
}

function brief(value: unknown): string {
  if (typeof value === "string") return value;
  return (isErrorLike(value) ? read(value, "message") : undefined) ?? show(value);
}

/** Returns name, message and stack of a thrown value, which may be any value. */
export function errorParts(value: unknown): InvocationError {
  if (!isErrorLike(value)) {
    const message = typeof value === "string" ? value : `${show(value)} was thrown; throw an Error to get a stack`;
    return { name: "ThrownValue", message: cut(message, ERROR_TEXT_BYTES_MAX), stack: null };
  }
  const stack = stackOf(value);
  return {
    name: cut(read(value, "name") || "Error", 256),
    message: cut(read(value, "message") ?? "", ERROR_TEXT_BYTES_MAX),
    stack: stack ? cut(stack, ERROR_TEXT_BYTES_MAX) : null,
  };
}

/** Builds the body of a 500 that carries `x-levain-error`. */
export function errorJson({ name, message, stack }: InvocationError): string {
  return `{"name":${quote(name)},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}}`;
}

/** Formats an error argument of `console.*`: its stack, then the fields that a library added, such as `code`. */
function showError(error: object): string {
  const stack = stackOf(error);
  if (!stack) return show(error);
  const extra: Record<string, unknown> = {};
  let any = false;
  try {
    for (const key of Object.keys(error)) {
      if (hiddenErrorKeys.has(key)) continue;
      extra[key] = (error as any)[key];
      any = true;
    }
  } catch {}
  return any ? `${stack} ${show(extra)}` : stack;
}

// Bun adds the position as ordinary fields; the stack contains it already.
const hiddenErrorKeys = new Set(["name", "message", "stack", "cause", "line", "column", "sourceURL", "originalLine", "originalColumn"]);

function showArgument(value: unknown): string {
  if (typeof value === "string") return value;
  let isError = false;
  try {
    isError = value instanceof NativeError;
  } catch {}
  return isError ? showError(value as object) : show(value);
}

/** Formats the arguments of `console.log` as one text, with its `%` placeholders. */
export function format(args: unknown[]): string {
  const first = args[0];
  if (args.length === 1) return showArgument(first);
  let text = "";
  let next = 0;
  if (typeof first === "string") {
    next = 1;
    text = first.includes("%") ? first.replace(/%[sdifjoOc%]/g, (placeholder) => {
      if (placeholder === "%%") return "%";
      if (next >= args.length) return placeholder;
      return fill(placeholder, args[next++]);
    }) : first;
  }
  for (let i = next; i < args.length; i++) text += (i === 0 ? "" : " ") + showArgument(args[i]);
  return text;
}

function fill(placeholder: string, value: unknown): string {
  try {
    switch (placeholder) {
      case "%s":
        return typeof value === "bigint" ? `${value}n` : typeof value === "object" && value !== null ? showArgument(value) : NativeString(value);
      case "%d":
        return typeof value === "bigint" ? `${value}n` : NativeString(typeof value === "symbol" ? NaN : Number(value));
      case "%i":
        return typeof value === "bigint" ? `${value}n` : NativeString(parseInt(value as string));
      case "%f":
        return NativeString(parseFloat(value as string));
      case "%j":
        return stringify(value) ?? "undefined";
      case "%c":
        return "";
      case "%o":
        return show(value, { colors: false, depth: 4 });
      default:
        return show(value);
    }
  } catch {
    return show(value);
  }
}
