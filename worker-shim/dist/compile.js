// @bun
// src/compile.ts
import { writeFileSync } from "fs";
import { isBuiltin } from "module";
import { setPriority } from "os";
import { join } from "path";

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

// src/compile.ts
var MODULE = COMPILED_FILE.slice(0, -".js".length);
var FREE = "__levain_free_";
var REQUIRE = "__levain_require";
var TIME_MAX_MS = 60000;
var isBunOutput = (source) => /^(#![^\n]*\n)?\/\/ @bun\b/.test(source);
function objection(source) {
  if (source.includes("sourceMappingURL=data:"))
    return "it has a source map of its own";
  try {
    const transpiler = new Bun.Transpiler({ loader: "js", target: "bun", macro: false });
    const { exports, imports } = transpiler.scan(source);
    if (exports.length === 0)
      return "it is no ES module with exports";
    const other = [...imports, ...transpiler.scanImports(source)].find(({ path }) => !isBuiltin(path));
    if (other)
      return `it imports ${JSON.stringify(other.path)}, which is not in Bun`;
  } catch (error) {
    return errorParts(error).message;
  }
}
async function compile(source, folder, name) {
  const reason = objection(source);
  if (reason)
    return { ok: false, reason };
  const free = ["arguments", "import.meta", "__filename", "__dirname"];
  if (isBunOutput(source))
    free.push("require");
  const path = `/${COMPILED_FILE}`;
  const built = await Bun.build({
    entrypoints: [path],
    files: { [path]: source },
    target: "bun",
    format: "cjs",
    bytecode: true,
    packages: "external",
    sourcemap: "linked",
    banner: `"use strict";var ${REQUIRE}=require;`,
    define: {
      "process.env.NODE_ENV": "process.env.NODE_ENV",
      "import.meta.require": REQUIRE,
      ...Object.fromEntries(free.map((name) => [name, FREE + name.replaceAll(".", "_")]))
    },
    treeShaking: false,
    throw: false
  });
  if (!built.success)
    return { ok: false, reason: built.logs[0]?.message ?? "Bun does not say why" };
  const made = (kind) => built.outputs.find((output) => output.kind === kind);
  const [code, bytecode, map] = [made("entry-point"), made("bytecode"), made("sourcemap")];
  if (!code || !bytecode || !map)
    return { ok: false, reason: "Bun made no bytecode" };
  const text = await code.text();
  const different = difference(source, text);
  if (different)
    return { ok: false, reason: different };
  const write = (ending, content) => writeFileSync(join(folder, COMPILED_FILE + ending), content);
  write("", text);
  write(".jsc", new DataView(await bytecode.arrayBuffer()));
  write(".map", JSON.stringify({ ...await map.json(), sources: [name], sourcesContent: [null] }));
  return { ok: true };
}
var words = (text) => text.replace(/\\(?:u\{[0-9a-f]+\}|u[0-9a-f]{4}|x[0-9a-f]{2}|.)/gi, " ").match(/[\p{ID_Continue}$]+/gu) ?? [];
var PLAIN = new Set("var let const function class async await return undefined null true false NaN Infinity globalThis Bun".split(" "));
var ADDED = /^(__(create|getProtoOf|defProp|getOwnPropNames|getOwnPropDesc|hasOwnProp|accessProp|toESM|toESMCache_node|toESMCache_esm|toCommonJS|moduleCache|returnValue|exportSetter|export|commonJS|require|levain_require|dirname|filename)\d*|(exports|module|require)\d*|import_\w+)$/;
function difference(source, output) {
  const own = `exports_${MODULE}`;
  const body = output.slice(output.indexOf(`var ${own}`), output.lastIndexOf(`
})`));
  const before = words(source);
  const after = words(body);
  const free = after.find((word) => word.startsWith(FREE));
  if (free)
    return `it uses ${free.slice(FREE.length).replace("import_meta", "import.meta")}`;
  if (/(?<![\w$.#])eval\(/.test(body))
    return "it uses eval";
  if (count(after, own) !== 3 || after.includes(`module_${MODULE}`))
    return "it looks for the exports of CommonJS";
  const unnamed = `${MODULE}_default`;
  if (new RegExp(`(function\\*?|class) ${unnamed}\\b|\\b${unnamed} = (async\\b|function\\b|class\\b|\\(|\\w+ =>)`).test(body)) {
    return "its default export has no name";
  }
  const known = new Set([...before, ...PLAIN, own, unnamed, MODULE]);
  const strange = after.find((word) => !known.has(word) && /^[A-Za-z_$][\w$]*$/.test(word) && !ADDED.test(word));
  if (strange)
    return `Bun calls something in it ${strange}`;
  const uncommented = (text) => words(text.replace(/^[ \t]*(\/\/.*|\/\*[^]*?\*\/)/gm, ""));
  const [left, right] = isBunOutput(source) ? [uncommented(source), uncommented(body)] : [[], []];
  const missing = ["this", "function", "class"].find((word) => count(left, word) !== count(right, word));
  if (missing)
    return `Bun leaves out a word: ${missing}`;
}
var count = (list, word) => list.reduce((sum, it) => sum + (it === word ? 1 : 0), 0);
if (import.meta.main) {
  setTimeout(() => process.exit(3), TIME_MAX_MS);
  setPriority(19);
  const [file, folder, name] = process.argv.slice(2);
  let result;
  try {
    result = await compile(await Bun.file(file).text(), folder, name);
  } catch (error) {
    result = { ok: false, reason: errorParts(error).message };
  }
  process.stdout.write(`${JSON.stringify(result)}
`);
  process.exit(0);
}
export {
  compile,
  difference,
  objection
};
