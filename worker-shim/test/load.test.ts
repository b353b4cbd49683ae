import { expect, test } from "bun:test";
import { join } from "node:path";
import { withWorker, type Message } from "./worker.ts";

async function kindOf(source: string, more: Message = {}, name = "index.js"): Promise<string> {
  let result = "";
  await withWorker(async (worker) => {
    const { status, body } = await worker.assign(source, more, name);
    if (status !== 200) {
      result = `${status} ${body.error.kind}`;
      return;
    }
    const answer = await worker.invoke("e", "/");
    result = `${body.kind}: ${await answer.text()}`;
  });
  return result;
}

const forms: [title: string, source: string, more: Message, name: string, expected: string][] = [
  ["default function", `export default () => new Response("ok")`, {}, "a.js", "default: ok"],
  ["default function asked for as handler", `export default () => new Response("ok")`, { handler: "handler" }, "a.js", "default: ok"],
  ["default wins over handler", `export default () => new Response("ok"); export const handler = 1`, { handler: "handler" }, "a.js", "default: ok"],
  ["fetch method keeps its this", `export default { word: "ok", fetch() { return new Response(this.word) } }`, {}, "a.js", "fetch: ok"],
  ["export named handler", `export const handler = () => new Response("ok")`, { handler: "handler" }, "a.js", "named: ok"],
  ["another name", `export function api() { return new Response("ok") }`, { handler: "api" }, "a.js", "named: ok"],
  ["another name, with fetch", `export const api = { w: "ok", fetch() { return new Response(this.w) } }`, { handler: "api" }, "a.js", "named: ok"],
  ["default does not mean handler", `export const handler = () => new Response("ok")`, {}, "a.js", "422 no_handler"],
  ["another name ignores the default", `export default () => new Response("ok")`, { handler: "api" }, "a.js", "422 no_handler"],
  ["TypeScript", `export default (req: Request): Response => new Response("ok" satisfies string)`, {}, "a.ts", "default: ok"],
  ["top-level await", `await Bun.sleep(1); export default () => new Response("ok")`, {}, "a.js", "default: ok"],
  ["module.exports = function", `module.exports = () => new Response("ok")`, {}, "a.cjs", "default: ok"],
  ["module.exports = { fetch }", `module.exports = { fetch: () => new Response("ok") }`, {}, "a.cjs", "fetch: ok"],
  ["exports.handler", `exports.handler = () => new Response("ok")`, { handler: "handler" }, "a.cjs", "named: ok"],
  ["exports.api", `exports.api = () => new Response("ok")`, { handler: "api" }, "a.js", "named: ok"],
  ["__esModule with default", `Object.defineProperty(exports, "__esModule", { value: true }); exports.default = () => new Response("ok")`, {}, "a.cjs", ""],
  ["default two levels down", `export default { default: { default: () => new Response("ok") } }`, {}, "a.js", "commonjs: ok"],
  ["class with static fetch", `export default class Api { static w = "ok"; static fetch(req, ctx) { return new Response(ctx.invocationId && this.w) } }`, {}, "a.js", "fetch: ok"],
  ["class that inherits static fetch", `class Base { static fetch() { return new Response(this.w) } } export default class extends Base { static w = "ok" }`, {}, "a.js", "fetch: ok"],
  ["class with static fetch in TypeScript", `export default class Api { private static w: string = "ok"; static async fetch(req: Request) { return new Response(Api.w) } }`, {}, "a.ts", "fetch: ok"],
  ["named class with static fetch", `export class Api { static fetch() { return new Response("ok") } }`, { handler: "Api" }, "a.js", "named: ok"],
  ["module.exports = class", `module.exports = class { static fetch() { return new Response("ok") } }`, {}, "a.cjs", "fetch: ok"],
  ["instance of a class", `class Api { w = "ok"; fetch() { return new Response(this.w) } } export default new Api()`, {}, "a.js", "fetch: ok"],
  ["class without static fetch", `export default class Api { fetch() { return new Response("ok") } }`, {}, "a.js", "422 no_handler"],
  ["named class without static fetch", `export class Api { fetch() { return new Response("ok") } }`, { handler: "Api" }, "a.js", "422 no_handler"],
  ["a method called class", `const it = { class() { return new Response("ok") } }; export default it.class`, {}, "a.js", "default: ok"],
  ["a class without a name", `const it = [class{ static fetch() { return new Response("ok") } }]; export default it[0]`, {}, "a.js", "fetch: ok"],
  ["a function called like a class", `export default function classify() { return new Response("ok") }`, {}, "a.js", "default: ok"],
  ["null default", `export default null`, {}, "a.js", "422 no_handler"],
  ["no exports", `1`, {}, "a.js", "422 no_handler"],
];

test.each(forms)("handler: %s", async (_, source, more, name, expected) => {
  const found = await kindOf(source, more, name);
  if (expected) expect(found).toBe(expected);
  else expect(found).toEndWith(": ok");
});

const failures: [title: string, source: string, name: string, expected: Message][] = [
  ["syntax", `export default 1;\nconst x = ;\n`, "a.js", { kind: "syntax", name: "SyntaxError", message: "Unexpected ;", line: 2, column: 11, line_text: "const x = ;", file: expect.stringMatching(/a\.js$/) }],
  ["syntax in TypeScript", `type A = string;\nlet z = @;`, "a.ts", { kind: "syntax", line: 2, column: 10 }],
  ["two declarations", `let x = 1;\nlet x = 2;\nexport default x`, "a.js", { kind: "syntax", line: 2, column: 5, message: '"x" has already been declared' }],
  ["syntax the engine finds", `// @bun\nexport default 1\nconst x = ;`, "a.js", { kind: "syntax", line: 3, file: expect.stringMatching(/a\.js$/) }],
  ["missing package", `import z from "no-such-package"; export default z`, "a.js", { kind: "missing_module", message: expect.stringContaining("no-such-package") }],
  ["missing file", `import z from "./no-such-file.js"; export default z`, "a.js", { kind: "missing_module", message: expect.stringContaining("no-such-file") }],
  ["missing package, required", `require("no-such-package")`, "a.cjs", { kind: "missing_module" }],
  ["throw", `export const a = 1;\n  throw new TypeError("at the top")`, "a.js", { kind: "throw", name: "TypeError", message: "at the top", line: 2, file: expect.stringMatching(/a\.js$/), stack: expect.any(String) }],
  ["throw in TypeScript", `interface A {\n  b: string;\n}\nfunction f(a: A) {\n  throw new Error("typed");\n}\nf({ b: "" });`, "a.ts", { kind: "throw", message: "typed", line: 5 }],
  ["throw after await", `await 1;\nthrow new Error("late")`, "a.js", { kind: "throw", message: "late" }],
  ["throw undefined", `throw undefined`, "a.js", { kind: "throw", name: "ThrownValue" }],
  ["throw a runtime SyntaxError", `JSON.parse("{")`, "a.js", { kind: "throw", name: "SyntaxError" }],
  ["class", `export default class Api { fetch() {} }`, "a.js", { kind: "no_handler", exports: ["default"], message: expect.stringContaining("class without a static fetch") }],
  ["no handler", `export const a = 1, b = 2`, "a.js", { kind: "no_handler", exports: ["a", "b"], message: expect.stringContaining("exports a, b") }],
];

test.each(failures)("load error: %s", async (_, source, name, expected) => {
  await withWorker(async (worker) => {
    const { status, body } = await worker.assign(source, {}, name);
    expect(status).toBe(422);
    expect(JSON.stringify(body)).not.toContain("worker-shim");
    expect(body.error).toMatchObject(expected);
    // A worker that failed to load a bundle is useless.
    expect((await worker.fetch("/assign", { method: "PUT", body: "{}" })).status).toBe(503);
  });
});

test("load error: the entry does not exist", () =>
  withWorker(async (worker) => {
    const { status, body } = await worker.assign({ entry: join(worker.directory, "nothing.js") });
    expect([status, body.error.kind]).toEqual([422, "not_found"]);
  }));

test("import time output has no invocation, and is there before the assignment is answered", () =>
  withWorker(async (worker) => {
    await worker.assign(`console.log("loading", process.argv.length); export default () => new Response("ok")`);
    await worker.message({ type: "log", invocation: null, message: "loading 2" });
  }));

test("a .env, a bunfig.toml and a package.json in the working directory are not looked at", () =>
  withWorker(
    async (worker) => {
      await worker.assign(`export default () => Response.json([process.env.FROM_DOTENV ?? null, globalThis.preloaded ?? null])`);
      expect(await (await worker.invoke("e")).json()).toEqual([null, null]);
    },
    { ".env": "FROM_DOTENV=1", "bunfig.toml": 'preload = ["./preload.js"]', "preload.js": "globalThis.preloaded = 1" },
  ));
