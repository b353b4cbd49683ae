import { expect, test } from "bun:test";
import { readdirSync, existsSync } from "node:fs";
import { join } from "node:path";
import { bundles, withWorker } from "./worker.ts";

const folders = [...readdirSync(bundles), ...readdirSync(join(bundles, "faulty")).map((name) => `faulty/${name}`)].filter((name) =>
  existsSync(join(bundles, name, "request.json")),
);

test("there are samples", () => expect(folders.length).toBeGreaterThan(10));

test.each(folders)("sample %s does what its request.json says", (name) =>
  withWorker(async (worker) => {
    const { method, path, headers, body, expect: wanted } = await Bun.file(join(bundles, name, "request.json")).json();
    const file = ["index.ts", "index.js"].find((file) => existsSync(join(bundles, name, file)))!;
    const assigned = await worker.assign({ entry: join(bundles, name, file) }, { handler: "handler" });
    if (wanted.deploy_code) {
      expect(assigned.status).toBe(422);
      expect(assigned.body.error.kind).toBeOneOf(wanted.deploy_code === "BUNDLE_LOAD_ERROR" ? ["throw"] : ["syntax", "no_handler"]);
      return;
    }
    expect(assigned.body).toMatchObject({ kind: "default" });
    // Only the daemon can end these.
    if (wanted.code === "TIMEOUT" || wanted.code === "OUT_OF_MEMORY") return;
    // The pipes must be read, or a flood would block the function.
    const drained = Promise.all([worker.process.stdout.text(), worker.process.stderr.text()]);
    const answer = worker.invoke("exec-1", path, { method, headers, body });
    if (wanted.code === "WORKER_CRASHED") {
      await expect(answer.then((answer) => answer.text())).rejects.toThrow();
      await drained;
      return;
    }
    const { status, headers: got } = await answer;
    if (wanted.code) expect([status, got.has("x-levain-error")]).toEqual([500, true]);
    else {
      expect([status, got.has("x-levain-error")]).toEqual([wanted.status, false]);
      expect(await (await answer).text()).toContain(wanted.body_contains);
    }
  }),
);
