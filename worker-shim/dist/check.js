// @bun
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

// src/check.ts
var loaders = { js: "js", mjs: "js", cjs: "js", jsx: "jsx", ts: "ts", mts: "ts", cts: "ts", tsx: "tsx" };
function check(path, source) {
  const extension = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  const loader = loaders[extension];
  if (!loader)
    return { ok: false, errors: [{ message: `.${extension} is not a file type that can be a function; use ${Object.keys(loaders).join(", ")}` }] };
  try {
    const transpiler = new Bun.Transpiler({ loader, target: "bun", macro: false });
    const { exports, imports } = transpiler.scan(source);
    const all = new Map([...imports, ...transpiler.scanImports(source)].map(({ path, kind }) => [`${kind} ${path}`, { path, kind }]));
    const isModule = exports.length > 0 || imports.some(({ kind }) => kind === "import-statement");
    const commonjs = !isModule && /\bmodule\.exports\b|\bexports\s*[.[]|\bObject\.defineProperty\(exports\b/.test(source);
    return { ok: true, exports, imports: [...all.values()], commonjs };
  } catch (error) {
    const found = error?.errors?.length ? error.errors : [error];
    return { ok: false, errors: found.slice(0, 20).map(parseError) };
  }
}
function parseError(error) {
  const { position } = error ?? {};
  return {
    message: errorParts(error).message,
    ...position?.line && { line: position.line },
    ...position?.column && { column: position.column },
    ...position?.lineText && { line_text: cut(position.lineText, 512) }
  };
}
if (import.meta.main) {
  const path = process.argv[2];
  let result;
  try {
    result = check(path, await Bun.file(path).text());
  } catch (error) {
    result = { ok: false, errors: [{ message: errorParts(error).message }] };
  }
  process.stdout.write(`${JSON.stringify(result)}
`);
}
export {
  check
};
