import { afterEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { golden } from "./worker.ts";

const folders: string[] = [];
afterEach(() => folders.splice(0).forEach((folder) => rmSync(folder, { recursive: true })));

function project(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "levain-build-"));
  folders.push(folder);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, "project", path)), { recursive: true });
    writeFileSync(join(folder, "project", path), text);
  }
  return folder;
}

/** Builds like the daemon. */
function build(folder: string, entry = "src/index.ts"): any {
  const script = join(import.meta.dir, "../dist/build.js");
  const args = [process.execPath, "--no-env-file", "--config=/dev/null", "--no-install", script, entry, join(folder, "out"), join(folder, "result.json")];
  const { exitCode } = Bun.spawnSync(args, { cwd: join(folder, "project") });
  expect(exitCode).toBe(0);
  return JSON.parse(readFileSync(join(folder, "result.json"), "utf8"));
}

const read = (folder: string) => readdirSync(join(folder, "out")).sort().map((name) => [name, readFileSync(join(folder, "out", name), "utf8")]);

const files = {
  "package.json": `{"name":"p"}`,
  "src/index.ts": `import { greet } from "greet";\nimport { boom } from "./lib";\nimport file from "./data.txt" with { type: "file" };
export default (req: Request) => { if (req.url.endsWith("/boom")) boom(); return new Response(greet("you") + file + process.env.NODE_ENV); };\n`,
  "src/lib.ts": `interface A { a: number }\n\nexport function boom(): never {\n  throw new Error("boom");\n}\n`,
  "src/data.txt": "data",
  "node_modules/greet/package.json": `{"name":"greet","main":"index.js"}`,
  "node_modules/greet/index.js": `exports.greet = (name) => "hello " + name + " from " + __dirname;`,
};

test("a project becomes a bundle that says nothing of where it was built", () => {
  const [one, two] = [project(files), project(files)];
  expect(build(one)).toEqual(golden("built"));
  expect(build(two)).toEqual(golden("built"));
  expect(read(one)).toEqual(read(two));
  const [[, code], [, map], ...others] = read(one) as [string, string][];
  expect(code).not.toContain(one);
  expect(code).toContain(`"/bundle/node_modules/greet"`);
  expect(code).toContain("process.env.NODE_ENV");
  expect(JSON.parse(map!)).toMatchObject({ sources: ["node_modules/greet/index.js", "src/lib.ts", "src/index.ts"], sourcesContent: [null, null, null] });
  expect(others).toEqual([[expect.stringMatching(/^data-\w+\.txt$/), "data"]]);
});

test("a stack names the sources", async () => {
  const folder = project(files);
  build(folder);
  const { default: handler } = await import(join(folder, "out/bundle.js"));
  let stack = "";
  try {
    handler(new Request("http://x/boom"));
  } catch (error: any) {
    stack = error.stack;
  }
  expect(stack).toContain("/out/src/lib.ts:4:13");
  expect(stack).toMatch(/\/out\/src\/index\.ts:4:\d+/);
});

test("problems have a file, a line and a column", () => {
  const broken = project({ ...files, "src/index.ts": "// first\nconst x = ;" });
  expect(build(broken)).toEqual(golden("build_failed"));
  const missing = project({ ...files, "src/index.ts": `import "./gone";\nimport x from "nowhere";\nexport default x;` });
  expect(build(missing)).toMatchObject({
    ok: false,
    problems: [
      { message: `Could not resolve: "./gone"`, file: "src/index.ts", line: 1, column: 8 },
      { message: `Could not resolve: "nowhere"`, file: "src/index.ts", line: 2 },
    ],
  });
  expect(build(broken, "src/none.ts")).toMatchObject({ ok: false, problems: [{ message: expect.stringContaining("src/none.ts") }] });
  const macro = project({ "src/index.ts": `import { m } from "./m" with { type: "macro" };\nexport default () => m();`, "src/m.ts": `export function m() { throw new Error("no"); }` });
  expect(build(macro)).toMatchObject({ ok: false, problems: [{ file: expect.any(String) }] });
});
