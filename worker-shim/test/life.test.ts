import { expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { golden, shim, until, withFunction, Worker, withWorker } from "./worker.ts";

test("console methods, their levels and their format", () =>
  withFunction(
    `export default () => {
       console.debug("d"); console.log("l %s %d %j %%", "x", 4.5, { a: 1 }, { b: [1, "2"] }); console.info({ a: { b: 1 } }); console.warn("w\\nsecond line"); console.error(new TypeError("boom"));
       console.error("with", Object.assign(new Error("coded"), { code: "E1" })); console.log(); console.log(undefined, null, 5n); console.log("100%", 1); console.log("\\ud800");
       console.assert(false, "asserted"); console.assert(true, "not this"); console.group("outer"); console.log("in\\nside"); console.groupEnd(); console.count(); console.count();
       console.table([{ a: 1 }]); console.dir({ x: 1 }); console.trace("here"); console.time("t"); console.timeEnd("t");
       console.log({ get bad() { throw 1 } }, new Proxy({}, { get() { throw 1 } })); console.log(Object.create(null));
       return new Response("ok");
     }`,
    async (worker) => {
      await worker.invoke("exec-1");
      await worker.message({ message: /Object/ });
      await worker.message({ level: "debug", message: "d" });
      await worker.message({ level: "info", message: /^l x 4.5 \{"a":1\} % \{\n?\s*b: \[ 1, "2" \]/ });
      await worker.message({ level: "warn", message: "w\nsecond line" });
      await worker.message({ level: "error", message: /^TypeError: boom\n\s+at .*index\.js/ });
      await worker.message({ level: "error", message: /^with Error: coded\n[^]*code: "E1"/ });
      await worker.message({ message: "" });
      await worker.message({ message: "undefined null 5n" });
      await worker.message({ message: "100% 1" });
      await worker.message({ message: "\ufffd" });
      await worker.message({ level: "error", message: "Assertion failed: asserted" });
      await worker.message({ message: "  in\n  side" });
      await worker.message({ message: "default: 2" });
      await worker.message({ message: /│ a │/ });
      await worker.message({ level: "debug", message: /^Trace: here\n\s+at .*index\.js/ });
      await worker.message({ message: /^t: [\d.]+ms$/ });
      expect(worker.find({ message: "not this" })).toBeUndefined();
      expect(worker.garbage).toEqual([]);
      expect(JSON.stringify(worker.messages)).not.toContain("\\u001b");
      expect(new Set(worker.all({ type: "log" }).map(({ invocation }) => invocation))).toEqual(new Set(["exec-1"]));
    },
  ));

test("a long message is cut to the limit, marker included, never inside a character", () =>
  withFunction(
    `export default () => { console.log("é".repeat(1000)); console.log("x".repeat(300)); console.log("x".repeat(301)); return new Response("ok"); }`,
    async (worker) => {
      await worker.invoke("e");
      const cut = await worker.message({ message: /^é+… \[cut, 2000 bytes\]$/ });
      expect(Buffer.byteLength(cut.message)).toBeWithin(296, 301);
      await worker.message({ message: "x".repeat(300) });
      await worker.message({ message: /^x+… \[cut, 301 bytes\]$/ });
    },
    { log_line_bytes_max: 300 },
  ));

test("unhandled rejections and exceptions are reported, attributed, and not fatal", () =>
  withFunction(
    `export default (req) => {
       switch (new URL(req.url).pathname) {
         case "/late": setTimeout(() => Promise.reject(new Error("late rejection")), 1); break;
         case "/throw": setTimeout(() => { throw new Error("late throw") }, 1); break;
         case "/value": Promise.reject(undefined); break;
       }
       return new Response("ok");
     }`,
    async (worker) => {
      await worker.invoke("exec-late", "/late");
      await worker.message({ type: "rejection", invocation: "exec-late", guessed: true, message: "late rejection", stack: /late rejection/ });
      await worker.invoke("exec-throw", "/throw");
      const thrown = await worker.message({ type: "rejection", invocation: "exec-throw", message: "late throw" });
      expect(thrown.guessed).toBeUndefined();
      await worker.invoke("exec-value", "/value");
      await worker.message({ type: "rejection", stack: null, message: /undefined was thrown/ });
      expect((await worker.invoke("e")).status).toBe(200);
    },
  ));

test("what was printed before process.exit arrives, and the exit is the worker's", () =>
  withFunction(
    `export default () => { for (let i = 0; i < 200; i++) console.log("line", i); process.exit(3); }`,
    async (worker) => {
      await expect(worker.invoke("e").then((answer) => answer.text())).rejects.toThrow();
      expect(await worker.process.exited).toBe(3);
      await worker.message({ message: "line 199" });
      expect(worker.all({ type: "log" }).length).toBe(200);
    },
  ));

test("raw output stays on the pipes", () =>
  withFunction(
    `export default async () => { process.stdout.write("out\\n"); process.stderr.write("err\\n"); console.write("bun\\n"); await Bun.sleep(0); process.exit(0); }`,
    async (worker) => {
      await worker.invoke("e").then((answer) => answer.text()).catch(() => {});
      expect(await worker.process.stdout.text()).toContain("out\n");
      expect(await worker.process.stderr.text()).toContain("err\n");
      expect(worker.all({ type: "log" })).toEqual([]);
    },
  ));

test("a function that replaces globals does not break the channel or the answers", () =>
  withFunction(
    `const log = console.log;
     JSON.stringify = () => "broken"; TextEncoder.prototype.encode = () => 1; Response.json = () => 1; globalThis.Response2 = Response; globalThis.Buffer = undefined; Date.now = () => 0;
     Object.prototype.toJSON = () => "bad"; String.prototype.toJSON = () => "bad"; process.exit = () => {}; process.kill = () => {}; Bun.inspect = undefined; performance.now = () => 0;
     export default (req, ctx) => {
       if (req.url.endsWith("/throw")) throw new Error("still told");
       log("printed", { a: 1 });
       ctx.waitUntil(Promise.reject(new Error("still reported")));
       globalThis.Response = class Response {};
       return new Response2("fine " + ctx.remainingMs());
     }`,
    async (worker) => {
      expect(await (await worker.invoke("exec-1")).text()).toMatch(/^fine [45]\d{3}$/);
      await worker.message({ type: "log", invocation: "exec-1", message: /^printed \{/ });
      await worker.message({ type: "rejection", invocation: "exec-1", message: "still reported" });
      await worker.message({ type: "settled", invocation: "exec-1" });
      expect(await (await worker.invoke("exec-2", "/throw")).json()).toMatchObject({ name: "Error", message: "still told" });
      expect(worker.garbage).toEqual([]);
    },
  ));

test("no globals and no arguments of the shim are left for the function", () =>
  withFunction(
    `export default (...args) => Response.json({ globals: Object.keys(globalThis).sort(), argv: process.argv.slice(1), args: args.length, ctx: Object.keys(args[1]), server: "server" in args[1] })`,
    async (worker) => {
      const body: any = await (await worker.invoke("e")).json();
      expect(body).toMatchObject({ argv: [expect.stringMatching(/index\.js$/)], args: 2, ctx: [], server: false });
      const plain = Bun.spawnSync([process.execPath, "-e", "process.stdout.write(JSON.stringify(Object.keys(globalThis).sort()))"]).stdout.toString();
      expect(body.globals.filter((name: string) => !JSON.parse(plain).includes(name))).toEqual([]);
    },
  ));

test("a daemon that does not read costs dropped lines, not the function, and every line that arrives is whole", () =>
  withFunction(
    `export default (req, ctx) => {
       if (req.url.endsWith("/more")) { console.log("after"); return new Response("ok"); }
       ctx.waitUntil(Promise.resolve());
       for (let i = 0; i < 200; i++) console.log(String(i).padEnd(10000, "x"));
       return new Response("ok");
     }`,
    async (worker) => {
      worker.pauseControl();
      expect(await (await worker.invoke("exec-1")).text()).toBe("ok");
      worker.resumeControl();
      // Never dropped, however full the channel was.
      await worker.message({ type: "settled", invocation: "exec-1" });
      await worker.invoke("exec-2", "/more");
      const after = await worker.message({ message: "after" });
      expect(Object.keys(after)).toEqual(Object.keys(golden("log_after_drop")));
      expect(worker.garbage).toEqual([]);
      const arrived = worker.all({ type: "log", invocation: "exec-1" }).length;
      expect(arrived).toBeLessThan(200);
      expect(arrived + after.dropped).toBe(200);
      await worker.invoke("exec-3", "/more");
      expect((await worker.message({ invocation: "exec-3" })).dropped).toBeUndefined();
    },
  ));

test("the end of the control channel ends the worker, exit handlers or not", () =>
  withFunction(
    `process.on("exit", () => { for (;;); }); setInterval(() => {}, 1000); export default () => new Promise(() => {})`,
    async (worker) => {
      worker.invoke("e").catch(() => {});
      worker.closeControl();
      await until("the end", () => worker.process.exitCode !== null || worker.process.signalCode !== null);
    },
  ));

test("a prewarmed worker ends with the daemon too", () =>
  withWorker(async (worker) => {
    worker.closeControl();
    await until("the end", () => worker.process.exitCode !== null || worker.process.signalCode !== null);
  }));

test("a ping is answered when the event loop turns, whatever else runs, and not before", () =>
  withFunction(
    `let go; const gate = new Promise((resolve) => (go = resolve));
     export default async (req) => {
       const path = new URL(req.url).pathname;
       if (path === "/wait") await gate;
       if (path === "/open") go();
       if (path === "/block") {
         const { existsSync } = require("node:fs");
         console.log("blocking");
         while (!existsSync("unblock"));
         console.log("unblocked");
       }
       return new Response(path);
     }`,
    async (worker) => {
      worker.tell({ type: "ping", number: 1 });
      await worker.message({ type: "pong", number: 1 });
      const waiting = worker.invoke("exec-wait", "/wait");
      worker.tell({ type: "ping", number: 2 });
      await worker.message({ type: "pong", number: 2 });
      const blocked = worker.invoke("exec-block", "/block");
      await worker.message({ message: "blocking" });
      worker.tell({ type: "ping", number: 3 });
      worker.tell({ type: "ping", number: 4 });
      await Bun.write(join(worker.directory, "unblock"), "");
      await worker.message({ type: "pong", number: 4 });
      const said = worker.messages.map(({ type, number, message }) => number ?? message ?? type);
      expect(said.indexOf("unblocked")).toBeLessThan(said.indexOf(3));
      expect(said.indexOf(3)).toBeLessThan(said.indexOf(4));
      await worker.invoke("exec-open", "/open");
      expect(await Promise.all([waiting, blocked].map(async (answer) => (await answer).text()))).toEqual(["/wait", "/block"]);
    },
  ));

test("nothing of a rehearsal reaches the function, and there is none after the assignment", async () => {
  const source = `module.exports = async (req) => Response.json({
    asked: req.method + new URL(req.url).pathname, argv: process.argv.length, own: process.argv[1] === __filename,
    flags: Object.keys(process.env).filter((name) => name.startsWith("BUN_FEATURE")), rehearsed: Object.keys(require.cache).some((path) => path.endsWith("rehearsal.js")),
  })`;
  for (const rehearsals of [0, 1, 2]) {
    await withWorker(async (worker) => {
      for (let count = 0; count < rehearsals; count++) expect((await worker.rehearse()).status).toBe(200);
      expect((await worker.assign(source, { variables: { A: "1" } }, "index.cjs")).status).toBe(200);
      for (const method of ["PUT", "GET"]) {
        const body: any = await (await worker.invoke("exec-a", "/rehearsal", { method })).json();
        expect(body).toEqual({ asked: `${method}/rehearsal`, argv: 2, own: true, flags: [], rehearsed: rehearsals > 0 });
      }
      expect(worker.messages.map(({ type }) => type)).toEqual(["ready"]);
    });
  }
});
