// @bun
// src/build.ts
import { mkdirSync, writeFileSync } from "fs";
import { dirname, join, relative } from "path";

// src/protocol.ts
var ASSIGN_METHOD = "PUT";
var ASSIGN_PATH = "/assign";
var REHEARSAL_PATH = "/rehearsal";
var HEADER_INVOCATION_ID = "x-invocation-id";
var HEADER_DEADLINE = "x-levain-deadline";
var HEADER_ERROR = "x-levain-error";
var HEADER_PENDING = "x-levain-pending";
var LOG_LINE_BYTES_DEFAULT = 16384;
var LOG_LINE_BYTES_FLOOR = 256;
var ERROR_TEXT_BYTES_MAX = 16384;
var REQUEST_BODY_BYTES_MAX = 2 ** 40;
var COMPILED_FILE = "levain_compiled.js";
var BUNDLE_FILE = "bundle.js";
var BUNDLE_FOLDER = "/bundle";

// src/text.ts
var { inspect } = Bun;
var NativeError = Error;
var NativeString = String;
var byteLength = Buffer.byteLength;
var stringify = JSON.stringify;
var encoder = new TextEncoder;
var encodeInto = encoder.encodeInto.bind(encoder);
var decoder = new TextDecoder;
var decode = decoder.decode.bind(decoder);
var shimFile = import.meta.path;
var quiet = { colors: false, depth: 2 };
function show(value, options = quiet) {
  try {
    return inspect(value, options);
  } catch {
    return "[a value that cannot be shown]";
  }
}
function quote(text) {
  return stringify(text.toWellFormed());
}
function cut(text, bytes) {
  if (text.length * 3 <= bytes)
    return text;
  const length = byteLength(text);
  if (length <= bytes)
    return text;
  const marker = `\u2026 [cut, ${length} bytes]`;
  const kept = new Uint8Array(bytes - byteLength(marker));
  const { written } = encodeInto(text.slice(0, bytes), kept);
  return decode(kept.subarray(0, written)) + marker;
}
function read(value, key) {
  try {
    const found = value[key];
    return typeof found === "string" ? found : undefined;
  } catch {
    return;
  }
}
function isErrorLike(value) {
  try {
    return value instanceof NativeError || typeof value === "object" && value !== null && read(value, "message") !== undefined;
  } catch {
    return false;
  }
}
function stackOf(error, depth = 0) {
  let stack = read(error, "stack");
  if (stack === undefined)
    return;
  if (stack.includes(shimFile)) {
    let kept = "";
    for (const line of stack.split(`
`))
      if (!line.includes(shimFile))
        kept += (kept && `
`) + line;
    stack = kept;
  }
  let cause;
  try {
    cause = error.cause;
  } catch {}
  if (cause !== undefined && depth < 4)
    stack += `
caused by: ${stackOf(cause, depth + 1) ?? brief(cause)}`;
  return stack;
}
function brief(value) {
  if (typeof value === "string")
    return value;
  return (isErrorLike(value) ? read(value, "message") : undefined) ?? show(value);
}
function errorParts(value) {
  if (!isErrorLike(value)) {
    const message = typeof value === "string" ? value : `${show(value)} was thrown; throw an Error to get a stack`;
    return { name: "ThrownValue", message: cut(message, ERROR_TEXT_BYTES_MAX), stack: null };
  }
  const stack = stackOf(value);
  return {
    name: cut(read(value, "name") || "Error", 256),
    message: cut(read(value, "message") ?? "", ERROR_TEXT_BYTES_MAX),
    stack: stack ? cut(stack, ERROR_TEXT_BYTES_MAX) : null
  };
}
function errorJson({ name, message, stack }) {
  return `{"name":${quote(name)},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}}`;
}
function showError(error) {
  const stack = stackOf(error);
  if (!stack)
    return show(error);
  const extra = {};
  let any = false;
  try {
    for (const key of Object.keys(error)) {
      if (hiddenErrorKeys.has(key))
        continue;
      extra[key] = error[key];
      any = true;
    }
  } catch {}
  return any ? `${stack} ${show(extra)}` : stack;
}
var hiddenErrorKeys = new Set(["name", "message", "stack", "cause", "line", "column", "sourceURL", "originalLine", "originalColumn"]);
function showArgument(value) {
  if (typeof value === "string")
    return value;
  let isError = false;
  try {
    isError = value instanceof NativeError;
  } catch {}
  return isError ? showError(value) : show(value);
}
function format(args) {
  const first = args[0];
  if (args.length === 1)
    return showArgument(first);
  let text = "";
  let next = 0;
  if (typeof first === "string") {
    next = 1;
    text = first.includes("%") ? first.replace(/%[sdifjoOc%]/g, (placeholder) => {
      if (placeholder === "%%")
        return "%";
      if (next >= args.length)
        return placeholder;
      return fill(placeholder, args[next++]);
    }) : first;
  }
  for (let i = next;i < args.length; i++)
    text += (i === 0 ? "" : " ") + showArgument(args[i]);
  return text;
}
function fill(placeholder, value) {
  try {
    switch (placeholder) {
      case "%s":
        return typeof value === "bigint" ? `${value}n` : typeof value === "object" && value !== null ? showArgument(value) : NativeString(value);
      case "%d":
        return typeof value === "bigint" ? `${value}n` : NativeString(typeof value === "symbol" ? NaN : Number(value));
      case "%i":
        return typeof value === "bigint" ? `${value}n` : NativeString(parseInt(value));
      case "%f":
        return NativeString(parseFloat(value));
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

// src/build.ts
var PROBLEMS_MAX = 50;
var LINE_TEXT_BYTES_MAX = 512;
async function build(root, entry, folder) {
  let built;
  try {
    built = await Bun.build({
      entrypoints: [join(root, entry)],
      root,
      target: "bun",
      sourcemap: "linked",
      naming: { entry: BUNDLE_FILE, chunk: "[name]-[hash].[ext]", asset: "[name]-[hash].[ext]" },
      define: { "process.env.NODE_ENV": "process.env.NODE_ENV" },
      throw: false
    });
  } catch (error) {
    const all = error?.errors?.length ? error.errors : [error];
    return { ok: false, problems: all.slice(0, PROBLEMS_MAX).map((it) => problem(it, root)), warnings: [] };
  }
  const of = (level) => built.logs.filter((it) => level(it.level)).slice(0, PROBLEMS_MAX).map((it) => problem(it, root));
  const warnings = of((level) => level === "warning");
  if (!built.success)
    return { ok: false, problems: of((level) => level === "error"), warnings };
  for (const output of built.outputs) {
    const path = join(folder, output.path);
    mkdirSync(dirname(path), { recursive: true });
    if (output.kind === "sourcemap")
      writeFileSync(path, map(await output.text(), root));
    else if (output.kind === "asset")
      writeFileSync(path, new Uint8Array(await output.arrayBuffer()));
    else
      writeFileSync(path, settled(await output.text(), root));
  }
  return { ok: true, problems: [], warnings };
}
var settled = (code, root) => code.replaceAll(root, BUNDLE_FOLDER).replace(/^\/\/# debugId=[0-9A-F]+\n/m, "");
function map(text, root) {
  const { debugId: _, ...map } = JSON.parse(text);
  const sources = map.sources.map((source) => source.replaceAll(root, BUNDLE_FOLDER));
  return JSON.stringify({ ...map, sources, sourcesContent: sources.map(() => null) });
}
function problem(error, root) {
  const { position } = error ?? {};
  const file = position?.file ? relative(root, position.file) : undefined;
  const message = errorParts(error).message.replace(/\. Maybe you need to "bun install"\?$/, "").replaceAll(`${root}/`, "");
  return {
    message,
    ...file && { file },
    ...position?.line && { line: position.line },
    ...position?.column && { column: position.column },
    ...position?.lineText && { line_text: cut(position.lineText, LINE_TEXT_BYTES_MAX) }
  };
}
if (import.meta.main) {
  const [entry, folder, result] = process.argv.slice(2);
  mkdirSync(folder, { recursive: true });
  writeFileSync(result, JSON.stringify(await build(process.cwd(), entry, folder)));
  process.exit(0);
}
export {
  build
};
