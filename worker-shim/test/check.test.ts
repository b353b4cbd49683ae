import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "../src/check.ts";
import { golden } from "./worker.ts";

test("what is exported and imported", () => {
  expect(check("a.js", `import z from "zod"; export default () => z`)).toEqual(golden("check_ok"));
  expect(check("a.ts", `import type { A } from "types"; export const a: A = 1, b = 2; await import("./later.ts")`)).toEqual({
    ok: true, exports: ["a", "b"], imports: [{ path: "./later.ts", kind: "dynamic-import" }], commonjs: false,
  });
  expect(check("a.tsx", `export default () => <p>hi</p>`)).toMatchObject({ ok: true, exports: ["default"] });
});

test("CommonJS is recognised by what it writes", () => {
  expect(check("a.js", `const z = require("zod"); module.exports = () => z`)).toEqual({ ok: true, exports: [], imports: [{ path: "zod", kind: "require-call" }], commonjs: true });
  expect(check("a.cjs", `exports.handler = () => 1`)).toMatchObject({ commonjs: true });
  expect(check("a.js", `export default 1; const s = "module.exports"`)).toMatchObject({ commonjs: false });
  expect(check("a.js", `globalThis.x = 1`)).toMatchObject({ ok: true, exports: [], commonjs: false });
});

test("errors have lines and columns that count from 1", () => {
  expect(check("a.js", `export default 1;\nconst x = ;`)).toEqual(golden("check_failed"));
  expect(check("a.js", `;;; %`)).toMatchObject({ ok: false, errors: [{ line: 1 }] });
  expect(check("a.ts", `const a: string = 1;\nlet a = 2;`)).toMatchObject({ ok: false, errors: [{ line: 2, column: 5 }] });
  expect(check("a.py", `print(1)`)).toMatchObject({ ok: false });
  const minified: any = check("a.js", `${"a();".repeat(10_000)}let x = ;`);
  expect(minified.errors[0]).toMatchObject({ line: 1, column: 40_009 });
  expect(Buffer.byteLength(minified.errors[0].line_text)).toBeLessThan(600);
});

test("a macro is refused, and does not run", () => {
  const folder = mkdtempSync(join(tmpdir(), "levain-check-"));
  writeFileSync(join(folder, "macro.ts"), `globalThis.macroRan = true; export const m = () => 1;`);
  const source = `import { m } from ${JSON.stringify(join(folder, "macro.ts"))} with { type: "macro" };\nexport default () => m();`;
  expect(check("a.js", source)).toMatchObject({ ok: false, errors: [{ message: "Macros are disabled", line: 2 }] });
  expect((globalThis as any).macroRan).toBeUndefined();
  rmSync(folder, { recursive: true });
});

test("as a program: one line of JSON, exit code 0, none of the file's code run", async () => {
  const run = (file: string) =>
    Bun.spawnSync([process.execPath, "--no-env-file", "--config=/dev/null", "--no-install", join(import.meta.dir, "../dist/check.js"), file]);
  const fixtures = join(import.meta.dir, "../../bundles");
  const good = run(join(fixtures, "faulty/throws-at-import/index.js"));
  expect([good.exitCode, JSON.parse(good.stdout.toString())]).toMatchObject([0, { ok: true }]);
  const bad = run(join(fixtures, "faulty/syntax-error/index.js"));
  expect([bad.exitCode, JSON.parse(bad.stdout.toString())]).toMatchObject([0, { ok: false, errors: [{ line: expect.any(Number) }] }]);
  const none = run(join(fixtures, "nothing.js"));
  expect([none.exitCode, JSON.parse(none.stdout.toString()).ok]).toEqual([0, false]);
});
