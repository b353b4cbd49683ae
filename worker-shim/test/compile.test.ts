import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile } from "../src/compile.ts";
import { COMPILED_FILE } from "../src/protocol.ts";
import { golden, withWorker } from "./worker.ts";

const scratch = mkdtempSync(join(tmpdir(), "levain-compile-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let unique = 0;

function folder(): string {
  const path = join(scratch, String(++unique));
  mkdirSync(path);
  return path;
}

const refusal = async (source: string) => {
  const result: any = await compile(source, folder(), "bundle.js");
  return result.ok ? "compiled" : result.reason;
};

const named = (value: string) => `function f() { return ${value}; } export { f as default };`;
const made = (source: string) => `// @bun\n${source}`;

test.each([
  ["compiled", named("1")],
  ["compiled", made(named("1"))],
  ["compiled", `import { join } from "path"; ${named("join('a')")}`],
  ["compiled", `import fs, * as all from "node:fs"; import { serve } from "bun"; import { Database } from "bun:sqlite"; ${named("[fs, all, serve, Database]")}`],
  ["compiled", `export const GET = () => 1; export default { fetch() {} }; export let counter = 0;`],
  ["compiled", made(`var __require = import.meta.require; var fs = __require("fs"); ${named("fs")}`)],
  ["compiled", made(`function unused() {} ${named("1")}`)],
  // Bundles of esbuild: it looks for a `require`, which Bun gives to files that it translates.
  ["compiled", `var __require = ((x) => typeof require !== "undefined" ? require : x)(); ${named("__require('fs')")}`],
  ["compiled", `var t = { "%eval%": eval }; ${named("(0, t['%eval%'])('1')")}`],
  ["compiled", `var u = "\\u00e9\\xe9\\u{1f600}\\0", v = /\\d\\w/, w = "\\uD83D\\uDCA9"; ${named("[u, v, w]")}`],
  ["compiled", made(`/*! this function is a class */\nclass A { a() { return this } } ${named("new A")}`)],
  ["it is no ES module with exports", `module.exports = () => 1`],
  ["it is no ES module with exports", `globalThis.x = 1`],
  ["it looks for the exports of CommonJS", `export * from "path"; export default function f() {}`],
  [`it imports "zod", which is not in Bun`, `import z from "zod"; ${named("z")}`],
  [`it imports "./other.js", which is not in Bun`, named(`import("./other.js")`)],
  [`it imports "./other.json", which is not in Bun`, named(`require("./other.json")`)],
  ["Macros are disabled", `import { readFileSync } from "node:fs" with { type: "macro" }; ${named("readFileSync('/etc/hostname')")}`],
  ["Macros are disabled", `import m from "macro:/x.ts"; ${named("m()")}`],
  [`"await" can only be used inside an "async" function`, `await 1; ${named("1")}`],
  ["it uses import.meta", named("import.meta.url")],
  ["it uses import.meta", named("import.meta.dir + import.meta.main")],
  ["it uses import.meta", made(`var self = import.meta; ${named("self")}`)],
  ["it uses __dirname", named("__dirname")],
  ["it uses require", made(named("typeof require"))],
  ["it uses arguments", `const f = () => typeof arguments; export { f as default };`],
  ["it uses eval", named("eval('f')")],
  ["it looks for the exports of CommonJS", named("typeof exports")],
  ["it looks for the exports of CommonJS", made(`if (typeof module === "object") globalThis.x = 1; ${named("1")}`)],
  ["its default export has no name", `export default () => 1`],
  ["its default export has no name", `export default async function () {}`],
  ["its default export has no name", `export default class { fetch() {} }`],
  ["Bun leaves out a word: this", made(`var self = this; ${named("self")}`)],
  ["Bun calls something in it AB", `var u = "\\x41B"; ${named("u")}`],
  ["it has a source map of its own", `${named("1")}\n//# sourceMappingURL=data:application/json;base64,e30=`],
  [`Cannot assign to "c" because it is a constant`, `const c = 1; try { c = 2 } catch {} ${named("c")}`],
])("%s: %s", async (reason, source) => {
  expect(await refusal(source)).toBe(reason);
});

/** Output of a module in a process of its own. */
function run(file: string, code: string): unknown {
  const script = join(scratch, "run.mjs");
  writeFileSync(script, `const module = await import(process.argv[2]); const result = await (async () => { ${code} })(); console.log(JSON.stringify(result, (_, value) => value === undefined ? "undefined" : value));`);
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "--no-env-file", "--config=/dev/null", "--no-install", script, file], { env: { NODE_ENV: "testing" } });
  expect(stderr.toString()).toBe("");
  return JSON.parse(stdout.toString());
}

const program = `
import { join as unite } from "node:path";
import * as os from "node:os";
let late = 1;
export let counter = 0;
const unused = /* @__PURE__ */ (() => { globalThis.unused = 1; return 1; })();
class Failure extends Error {}
class Box { #inside = 1; static made = new.target; inside() { return this.#inside; } }
const arrow = () => 1;
function nest(depth) {
  if (depth === 0)
    throw new Failure("nested " +
      depth);
  return [nest(depth - 1)];
}
const caught = (body) => { try { return body(); } catch (error) { return error.name + ": " + error.message; } };
function down(count) { return count === 0 ? "the bottom" : down(count - 1); }
const probes = {
  strict: () => (function () { return this; })(),
  undeclared: () => caught(() => { nothing_of_the_name = 1; }),
  frozen: () => caught(() => { Object.freeze({}).x = 1; }),
  calls: () => caught(() => down(1e6)),
  environment: () => [process.env.NODE_ENV, caught(() => { process.env.NODE_ENV = "changed"; return process.env.NODE_ENV; })],
  names: () => [Failure.name, Box.name, arrow.name, nest.name, probes.names.name, (class {}).name, (() => {}).name],
  texts: () => [nest.length, "\\u00e9\\ud83d\\ude00\\0".length, \`a\${1}\`, String.raw\`\\n\`, /\\p{L}/u.test("é")],
  types: () => [typeof window, typeof document, typeof process, typeof Bun.version, typeof globalThis.nest],
  builtins: () => [unite("a", "b"), typeof os.cpus, typeof os.default.cpus],
  private: () => new Box().inside(),
  pure: () => globalThis.unused,
  dynamic: async () => typeof (await import("node:fs")).readFileSync,
  indirect: () => [(0, eval)("typeof nest"), new Function("return typeof nest")()],
  counts: () => [++counter, late],
  stack: () => caught(() => nest(3)) && (() => { try { nest(3); } catch (error) { return error.stack; } })(),
  stacks: async () => { try { await (async () => { await 1; [1].map((one) => nest(one)); })(); } catch (error) { return error.stack; } },
};
async function all() { const found = {}; for (const [name, probe] of Object.entries(probes)) found[name] = await probe(); return found; }
export { all as default, Box };
`;

test.each([
  ["what Bun translates", program, (stack: string) => stack],
  // Bun knows the position of a call there; through a source map, that of a word in the call.
  ["what Bun has made", made(program), (stack: string) => stack.replace(/:\d+\)/g, ")")],
])("compiled does the same: %s", async (_, source, plain) => {
  const at = folder();
  writeFileSync(join(at, "bundle.js"), source);
  mkdirSync(join(at, "cache"));
  expect(await compile(source, join(at, "cache"), "../bundle.js")).toEqual(golden("compiled"));
  const compiled = join(at, "cache", COMPILED_FILE);
  expect(["", ".jsc", ".map"].map((ending) => existsSync(compiled + ending))).toEqual([true, true, true]);
  const code = `const found = await module.default(); return [found, Object.keys(module), module.default.name, module.Box.name];`;
  const [before, after] = [join(at, "bundle.js"), compiled].map((file) => JSON.parse(plain(JSON.stringify(run(file, code)))));
  expect(before[0].stack).toContain(`/bundle.js:1`);
  expect(after).toEqual(before);
});

test("as a program: one line of JSON, exit code 0, none of the file's code run, nothing made without its folder", () => {
  const at = folder();
  const file = join(at, "bundle.js");
  writeFileSync(file, `console.log("it runs"); ${named("1")}`);
  const command = [process.execPath, "--no-env-file", "--config=/dev/null", "--no-install", join(import.meta.dir, "../dist/compile.js")];
  const start = (...more: string[]) => {
    const { exitCode, stdout } = Bun.spawnSync([...command, ...more], { cwd: "/", env: {} });
    return [exitCode, JSON.parse(stdout.toString())];
  };
  mkdirSync(join(at, "cache"));
  expect(start(file, join(at, "cache"), "b.js")).toEqual([0, { ok: true }]);
  expect(JSON.parse(readFileSync(join(at, "cache", `${COMPILED_FILE}.map`), "utf8"))).toMatchObject({ sources: ["b.js"] });
  expect(start(file, join(at, "gone"), "b.js")).toMatchObject([0, { ok: false }]);
  expect(existsSync(join(at, "gone"))).toBe(false);
  writeFileSync(file, named("import.meta.url"));
  expect(start(file, join(at, "cache"), "b.js")).toEqual([0, golden("not_compiled")]);
});

test("a worker loads the compiled form, and the file where that is gone", () =>
  withWorker(async (worker) => {
    const compiled = join(worker.directory, COMPILED_FILE);
    const { body } = await worker.assign(`export default () => new Response("the file");`, { compiled });
    expect(body.kind).toBe("default");
    expect(await (await worker.invoke("e")).text()).toBe("the file");
  }));

test("what the compiled form throws is thrown", () =>
  withWorker(async (worker) => {
    const compiled = join(worker.directory, COMPILED_FILE);
    writeFileSync(compiled, `await import("./gone.js"); export default () => new Response();`);
    const { status, body } = await worker.assign(`export default () => new Response("the file");`, { compiled });
    expect([status, body.error.kind]).toEqual([422, "missing_module"]);
  }));

test("the compiled form is the one that runs", () =>
  withWorker(async (worker) => {
    const compiled = join(worker.directory, COMPILED_FILE);
    writeFileSync(compiled, `module.exports = { __esModule: true, default: () => Response.json(process.argv[1]) };`);
    await worker.assign(`export default () => new Response("the file");`, { compiled });
    expect(await (await worker.invoke("e")).json()).toEndWith("/index.js");
  }));
