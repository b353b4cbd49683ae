import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { golden, until, withFunction, withWorker } from "./worker.ts";

/** Shape of a value: its keys in order, and the types at all levels. Other tests check the values. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shape(value[0])];
  if (value === null || typeof value !== "object") return value === null ? "null" : typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}

function expectShape(real: unknown, name: string): void {
  expect(JSON.stringify(shape(real))).toBe(JSON.stringify(shape(golden(name))));
}

test("control messages", async () => {
  const sample = golden("log").invocation;
  await withFunction(
    `console.warn("loading");
     export default (req, ctx) => {
       console.log("hello\\nsecond line");
       ctx.waitUntil(Promise.reject(new Error("background")));
       setTimeout(() => { Promise.reject(new Error("late")); Promise.reject(undefined); }, 1);
       return new Response("ok");
     }`,
    async (worker) => {
      expect(worker.find({ type: "ready" })).toEqual({ ...golden("ready"), bun: Bun.version });
      expect(await worker.message({ message: "loading" })).toEqual(golden("log_without_invocation"));
      await worker.invoke(sample);
      expect(await worker.message({ type: "log", level: "info" })).toEqual(golden("log"));
      expectShape(await worker.message({ message: "background" }), "rejection");
      expectShape(await worker.message({ message: "late" }), "rejection_guessed");
      expect(await worker.message({ message: golden("rejection_of_a_value").message })).toMatchObject({ type: "rejection", stack: null });
      expect(await worker.message({ type: "settled" })).toEqual(golden("settled"));
      worker.tell(golden("dropped"));
      await until("a second one", () => worker.all({ type: "settled" }).length === 2);
      worker.tell(golden("ping"));
      expect(await worker.message({ type: "pong" })).toEqual(golden("pong"));
    },
  );
});

test("the golden assignment is understood, and its answer", () =>
  withWorker(async (worker) => {
    const { entry, ...order } = golden("assign");
    const { body } = await worker.assign(`export default (_, ctx) => Response.json([ctx.functionName, ctx.version, ctx.environment, ctx.env])`, order);
    expectShape(body, "assign_ok");
    const [name, version, environment, env] = (await (await worker.invoke("e")).json()) as any;
    expect([name, version, environment]).toEqual([order.function, order.version, order.environment]);
    expect(env).toMatchObject(order.variables);
  }));

test.each([
  ["load_error_syntax", `export default 1;\nconst x = ;`],
  ["load_error_missing_module", `import "zod"`],
  ["load_error_no_handler", `export const a = 1, b = 2`],
  ["load_error_throw", `// first line\nthrow new TypeError("at the top")`],
])("%s", (name, source) =>
  withWorker(async (worker) => {
    const { status, body } = await worker.assign(source);
    expect(status).toBe(422);
    expectShape(body, name);
    if (name !== "load_error_missing_module") expect(body.error.message).toBe(golden(name).error.message);
  }));

test("load_error_not_found", () =>
  withWorker(async (worker) => {
    expectShape((await worker.assign({ entry: join(worker.directory, "nothing.js") })).body, "load_error_not_found");
  }));

test("invocation errors", () =>
  withFunction(
    `export default (req) => { if (req.url.endsWith("/throw")) throw new TypeError("boom"); if (req.url.endsWith("/value")) throw "plain text"; return {}; }`,
    async (worker) => {
      expectShape(await (await worker.invoke("e", "/throw")).json(), "invocation_error_throw");
      expect(await (await worker.invoke("e", "/value")).json()).toEqual(golden("invocation_error_value"));
      expect(await (await worker.invoke("e", "/object")).json()).toEqual(golden("invocation_error_not_a_response"));
    },
  ));

test("package.json names the versions of Bun in the one place the daemon reads", async () => {
  const { levain, engines } = await Bun.file(join(import.meta.dir, "../package.json")).json();
  expect(levain.bun).toMatch(/^\d+\.\d+\.\d+$/);
  expect(engines.bun).toBe(`>=${levain.bunMinimum}`);
});

test("dist is what the sources build to", async () => {
  const root = join(import.meta.dir, "..");
  const pinned = (await Bun.file(join(root, "package.json")).json()).levain.bun;
  // Another Bun may print the same program differently.
  if (Bun.version !== pinned) return;
  const out = mkdtempSync(join(tmpdir(), "levain-dist-"));
  const built = Bun.spawnSync([process.execPath, "build", "--target", "bun", "--outdir", out, "src/entry.ts", "src/check.ts", "src/compile.ts", "src/build.ts", "src/rehearsal.ts"], { cwd: root });
  expect(built.stderr.toString()).not.toContain("error");
  for (const file of ["entry.js", "check.js", "compile.js", "build.js", "rehearsal.js"]) {
    const same = (await Bun.file(join(out, file)).text()) === (await Bun.file(join(root, "dist", file)).text());
    expect([file, same ? "fresh" : "stale: run `bun run build` in worker-shim"]).toEqual([file, "fresh"]);
  }
  rmSync(out, { recursive: true });
});
