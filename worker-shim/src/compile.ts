// Bytecode: `bun --no-env-file --config=/dev/null --no-install compile.js <file> <folder> <name>` puts a compiled form
// of the file into the folder and prints one line of JSON, a `CompileResult`. It runs none of the file's code. The exit
// code is 0 either way.
//
// The compiled form is CommonJS with bytecode beside it and a source map that calls the file `name`. Bun's bundler
// makes it, and a bundler changes more than the form. So a file is compiled only if its behaviour cannot depend on
// that: a doubtful file is left as it is.

import { writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { setPriority } from "node:os";
import { join } from "node:path";
import { COMPILED_FILE, type CompileResult } from "./protocol.ts";
import { errorParts } from "./text.ts";

/** Name of the module while it is compiled. Bun derives names from it, so no file may contain it. */
const MODULE = COMPILED_FILE.slice(0, -".js".length);

/** Prefix for undeclared names that the file uses; in the output it shows that the file inspects its surroundings. */
const FREE = "__levain_free_";

/** Name of `require` in the compiled form; Bun offers it to modules as `import.meta.require`. */
const REQUIRE = "__levain_require";

/** Time after which this process ends if the daemon is gone; the daemon's own limit is shorter. */
const TIME_MAX_MS = 60_000;

/** Whether Bun made the file: such a file runs as it is, while Bun translates any other first. */
const isBunOutput = (source: string) => /^(#![^\n]*\n)?\/\/ @bun\b/.test(source);

/** Reason to leave the file as it is, as far as its own text tells. */
export function objection(source: string): string | undefined {
  // Bun follows a map inside the file, but the bundler does not.
  if (source.includes("sourceMappingURL=data:")) return "it has a source map of its own";
  try {
    // A macro would run now; with macros off, a macro is an error.
    const transpiler = new Bun.Transpiler({ loader: "js", target: "bun", macro: false } as object);
    const { exports, imports } = transpiler.scan(source);
    if (exports.length === 0) return "it is no ES module with exports";
    const other = [...imports, ...transpiler.scanImports(source)].find(({ path }) => !isBuiltin(path));
    if (other) return `it imports ${JSON.stringify(other.path)}, which is not in Bun`;
  } catch (error) {
    return errorParts(error).message;
  }
}

/** Compiles a text without objections. */
export async function compile(source: string, folder: string, name: string): Promise<CompileResult> {
  const reason = objection(source);
  if (reason) return { ok: false, reason };
  const free = ["arguments", "import.meta", "__filename", "__dirname"];
  // Bun gives a `require` to files that it translates, but not to those that it made.
  if (isBunOutput(source)) free.push("require");
  const path = `/${COMPILED_FILE}`;
  const built = await Bun.build({
    entrypoints: [path],
    files: { [path]: source },
    target: "bun",
    format: "cjs",
    bytecode: true,
    packages: "external",
    sourcemap: "linked",
    // An ES module is strict; CommonJS must say so.
    banner: `"use strict";var ${REQUIRE}=require;`,
    define: {
      // Otherwise Bun inlines the value at compile time.
      "process.env.NODE_ENV": "process.env.NODE_ENV",
      "import.meta.require": REQUIRE,
      ...Object.fromEntries(free.map((name) => [name, FREE + name.replaceAll(".", "_")])),
    },
    // Keeps everything: the file is a bundle already.
    treeShaking: false,
    throw: false,
  } as Bun.BuildConfig);
  if (!built.success) return { ok: false, reason: built.logs[0]?.message ?? "Bun does not say why" };
  const made = (kind: string) => built.outputs.find((output) => output.kind === kind);
  const [code, bytecode, map] = [made("entry-point"), made("bytecode"), made("sourcemap")];
  if (!code || !bytecode || !map) return { ok: false, reason: "Bun made no bytecode" };
  const text = await code.text();
  const different = difference(source, text);
  if (different) return { ok: false, reason: different };
  // Fails if the folder is gone, because the daemon is gone; Bun would create the folder again.
  const write = (ending: string, content: string | DataView) => writeFileSync(join(folder, COMPILED_FILE + ending), content);
  write("", text);
  write(".jsc", new DataView(await bytecode.arrayBuffer()));
  // The contents would double the map. Bun reads a map only if the key is present.
  write(".map", JSON.stringify({ ...(await map.json()), sources: [name], sourcesContent: [null] }));
  return { ok: true };
}

/** All words: names, keywords, and those in strings and comments, without escapes, which Bun writes in its own way. */
const words = (text: string): string[] =>
  text.replace(/\\(?:u\{[0-9a-f]+\}|u[0-9a-f]{4}|x[0-9a-f]{2}|.)/gi, " ").match(/[\p{ID_Continue}$]+/gu) ?? [];

/** Words of the language, and constants that Bun may write in another way than the file. */
const PLAIN = new Set("var let const function class async await return undefined null true false NaN Infinity globalThis Bun".split(" "));

/** Names that Bun adds: its helpers, numbered if the file uses the name, and its names for built-in modules. */
const ADDED =
  /^(__(create|getProtoOf|defProp|getOwnPropNames|getOwnPropDesc|hasOwnProp|accessProp|toESM|toESMCache_node|toESMCache_esm|toCommonJS|moduleCache|returnValue|exportSetter|export|commonJS|require|levain_require|dirname|filename)\d*|(exports|module|require)\d*|import_\w+)$/;

/** Difference in behaviour between the compiled form and the file, if there may be one. */
export function difference(source: string, output: string): string | undefined {
  const own = `exports_${MODULE}`;
  const body = output.slice(output.indexOf(`var ${own}`), output.lastIndexOf("\n})"));
  const before = words(source);
  const after = words(body);
  const free = after.find((word) => word.startsWith(FREE));
  if (free) return `it uses ${free.slice(FREE.length).replace("import_meta", "import.meta")}`;
  // Direct `eval` sees every name around it. Under another name, `eval` sees globals only.
  if (/(?<![\w$.#])eval\(/.test(body)) return "it uses eval";
  // Bun declares, fills and exports the object: any further use is the file's own `exports` or `module`.
  if (count(after, own) !== 3 || after.includes(`module_${MODULE}`)) return "it looks for the exports of CommonJS";
  // A default-exported function or class without a name gets one, which shows in stacks.
  const unnamed = `${MODULE}_default`;
  if (new RegExp(`(function\\*?|class) ${unnamed}\\b|\\b${unnamed} = (async\\b|function\\b|class\\b|\\(|\\w+ =>)`).test(body)) {
    return "its default export has no name";
  }
  const known = new Set([...before, ...PLAIN, own, unnamed, MODULE]);
  // Plain letters only: Bun may write others in another way.
  const strange = after.find((word) => !known.has(word) && /^[A-Za-z_$][\w$]*$/.test(word) && !ADDED.test(word));
  if (strange) return `Bun calls something in it ${strange}`;
  // At the top of a file that Bun has made, `this` is undefined; the bundler changes it.
  const uncommented = (text: string) => words(text.replace(/^[ \t]*(\/\/.*|\/\*[^]*?\*\/)/gm, ""));
  const [left, right] = isBunOutput(source) ? [uncommented(source), uncommented(body)] : [[], []];
  const missing = ["this", "function", "class"].find((word) => count(left, word) !== count(right, word));
  if (missing) return `Bun leaves out a word: ${missing}`;
}

const count = (list: string[], word: string): number => list.reduce((sum, it) => sum + (it === word ? 1 : 0), 0);

if (import.meta.main) {
  setTimeout(() => process.exit(3), TIME_MAX_MS);
  // This job is in the background, while callers wait for their functions.
  setPriority(19);
  const [file, folder, name] = process.argv.slice(2) as [string, string, string];
  let result: CompileResult;
  try {
    result = await compile(await Bun.file(file).text(), folder, name);
  } catch (error) {
    result = { ok: false, reason: errorParts(error).message };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
  process.exit(0);
}
