// Concurrent invocations in one worker, in the worst order: each one's output and waiting stay its own.

import { expect, test } from "bun:test";
import { until, withFunction, type Message, type Worker } from "./worker.ts";

/** Asserts that every log line "… NAME" belongs to the invocation `exec-NAME`. Returns the texts without the name, sorted. */
function linesOf(worker: Worker, name: string): string[] {
  const lines = worker.messages.filter(({ type, message }) => type === "log" && message.endsWith(` ${name}`));
  for (const line of lines) expect(line).toMatchObject({ invocation: `exec-${name}` });
  return lines.map(({ message }) => message.slice(0, -name.length - 1)).sort();
}

const settled = (worker: Worker): string[] => worker.all({ type: "settled" }).map(({ invocation }) => invocation);

/** Prelude of the functions below: `hold(name)` waits until an invocation of `/open/NAME`. */
const gates = `
  const gates = new Map();
  const hold = (name) => new Promise((resolve) => gates.set(name, resolve));
  const route = (req) => new URL(req.url).pathname.split("/").slice(1);
  const opens = (what, name) => { if (what === "open") gates.get(name)(); return what === "open" ? new Response("opened") : undefined; };
`;

test("fifty at once, each waiting in its own way, ended in reverse: every line has its own invocation", () =>
  withFunction(
    `${gates}
     import { EventEmitter } from "node:events";
     import { readFile } from "node:fs";
     const shared = new EventEmitter();
     const ways = [
       (gate, say) => gate.then(() => say("chained")),
       async (gate, say) => { for (let i = 0; i < 3; i++) { await gate; await null; } say("awaited"); },
       (gate, say) => new Promise((resolve) => setTimeout(() => gate.then(() => setTimeout(() => resolve(say("timers")), 1)), 1)),
       (gate, say) => new Promise((resolve) => { const own = new EventEmitter(); own.on("go", () => resolve(say("emitter"))); gate.then(() => own.emit("go")); }),
       (gate, say) => new Promise((resolve) => readFile("/proc/self/stat", () => gate.then(() => setImmediate(() => resolve(say("file")))))),
     ];
     export default async (req, ctx) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       const say = (text) => console.log(text, name);
       say("begins");
       const gate = hold(name);
       await ways[name % ways.length](gate, say);
       queueMicrotask(() => say("microtask"));
       process.nextTick(() => say("tick"));
       await Promise.all([Promise.resolve().then(() => say("nested")), Bun.sleep(1)]);
       say("ends");
       return Response.json([ctx.invocationId, req.headers.get("x-invocation-id")]);
     }`,
    async (worker) => {
      const names = Array.from({ length: 50 }, (_, i) => String(i));
      const answers = names.map((name) => worker.invoke(`exec-${name}`, `/wait/${name}`));
      await until("all wait", () => worker.all({ type: "log" }).length === names.length);
      for (const name of names.toReversed()) await worker.invoke(`exec-opens-${name}`, `/open/${name}`);
      const ways = ["chained", "awaited", "timers", "emitter", "file"];
      for (const [i, answer] of (await Promise.all(answers)).entries()) {
        expect(await answer.json()).toEqual([`exec-${i}`, `exec-${i}`]);
        const lines = await until(`all of ${i}`, () => linesOf(worker, `${i}`).length >= 6 && linesOf(worker, `${i}`));
        expect(lines).toEqual(["begins", "ends", "microtask", "nested", "tick", ways[i % ways.length]!].sort());
      }
    },
  ));

test("what a listener of a shared emitter prints belongs to the invocation that emits", () =>
  withFunction(
    `import { EventEmitter } from "node:events";
     const shared = new EventEmitter();
     export default (req) => {
       const name = new URL(req.url).pathname.slice(1);
       shared.once("go", (who) => console.log("heard by", name, "from", who));
       if (name === "b") shared.emit("go", name);
       return new Response(name);
     }`,
    async (worker) => {
      await worker.invoke("exec-a", "/a");
      await worker.invoke("exec-b", "/b");
      for (const name of ["a", "b"]) await worker.message({ invocation: "exec-b", message: `heard by ${name} from b` });
    },
  ));

test("streams that go on after their handlers returned: pulls under back-pressure, timers, one dropped midway", () =>
  withFunction(
    `const piece = new Uint8Array(100_000);
     export default (req, ctx) => {
       const name = new URL(req.url).pathname.slice(1);
       let left = 20;
       return new Response(new ReadableStream({
         start() { console.log("start", name); setTimeout(() => console.log("timer", name), 1); },
         async pull(controller) {
           if (left % 2) await Bun.sleep(1);
           console.log("pull", name);
           if (left-- === 0) controller.close(); else controller.enqueue(piece);
         },
         cancel() { console.log("cancel", name); },
       }));
     }`,
    async (worker) => {
      const caller = new AbortController();
      const answers = await Promise.all(["a", "b", "c"].map((name) => worker.invoke(`exec-${name}`, `/${name}`, { signal: name === "b" ? caller.signal : null })));
      const [a, b, c] = answers.map((answer) => answer.body!.getReader());
      await b!.read();
      caller.abort();
      await worker.message({ invocation: "exec-b", message: "cancel b" });
      let bytes = 0;
      // In turns, the last one first.
      for (const open = new Set([c!, a!]); open.size > 0; ) {
        for (const reader of open) {
          const { done, value } = await reader.read();
          bytes += value?.length ?? 0;
          if (done) open.delete(reader);
        }
      }
      expect(bytes).toBe(2 * 20 * 100_000);
      for (const name of ["a", "c"]) {
        const lines = await until(`all of ${name}`, () => linesOf(worker, name).length >= 23 && linesOf(worker, name));
        expect(lines).toEqual([...Array(21).fill("pull"), "start", "timer"]);
      }
      expect(linesOf(worker, "b")).toContain("cancel");
    },
  ));

test("one dropped connection aborts one signal; its listeners print under its name", () =>
  withFunction(
    `${gates}
     const listener = { handleEvent(event) { console.log("object hears", event.type, event.target === this.target, this.name); } };
     const removed = () => console.log("this was removed");
     export default async (req, ctx) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       const twice = () => console.log("hears", name);
       req.signal.addEventListener("abort", twice);
       req.signal.addEventListener("abort", twice);
       ctx.signal.addEventListener("abort", async function () { await Bun.sleep(1); console.log("hears later", this === req.signal, name); }, { once: true });
       req.signal.addEventListener("abort", { ...listener, target: req.signal, name });
       req.signal.addEventListener("abort", removed);
       req.signal.removeEventListener("abort", removed);
       const property = () => console.log("property hears", name);
       req.signal.onabort = property;
       console.log("same property", req.signal.onabort === property, name);
       await hold(name);
       return Response.json([req.signal.aborted, ctx.signal.aborted, req.signal.reason === undefined]);
     }`,
    async (worker) => {
      const callers = new Map(["a", "b", "c"].map((name) => [name, new AbortController()]));
      const answers = [...callers].map(([name, { signal }]) => worker.invoke(`exec-${name}`, `/wait/${name}`, { signal }));
      await until("all wait", () => worker.all({ type: "log" }).length === 3);
      callers.get("b")!.abort();
      await expect(answers[1]).rejects.toThrow();
      await worker.message({ message: "hears later true b" });
      // Still running: `settled` must wait for it, although the daemon asks.
      worker.tell({ type: "dropped", invocation: "exec-b" });
      for (const name of ["c", "a"]) await worker.invoke(`exec-opens-${name}`, `/open/${name}`);
      for (const answer of [answers[0]!, answers[2]!]) expect(await (await answer).json()).toEqual([false, false, true]);
      expect(settled(worker)).toEqual([]);
      await worker.invoke("exec-opens-b", "/open/b");
      await worker.message({ type: "settled" });
      expect(settled(worker)).toEqual(["exec-b"]);
      expect(linesOf(worker, "b")).toEqual(["hears", "hears later true", "object hears abort true", "property hears", "same property true"]);
      for (const name of ["a", "c"]) expect(linesOf(worker, name)).toEqual(["same property true"]);
      expect(worker.find({ message: "this was removed" })).toBeUndefined();
    },
  ));

test("each waitUntil settles its own invocation, whoever ends first, and a pending one is not hurried by a question about another", () =>
  withFunction(
    `${gates}
     export default (req, { waitUntil }) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       waitUntil(hold(name).then(() => console.log("done", name)));
       return new Response(name);
     }`,
    async (worker) => {
      const names = ["a", "b", "c", "d"];
      const answers = await Promise.all(names.map((name) => worker.invoke(`exec-${name}`, `/wait/${name}`)));
      for (const answer of answers) expect([answer.headers.get("x-levain-pending"), await answer.text()]).toEqual(["1", expect.any(String)]);
      worker.tell({ type: "dropped", invocation: "exec-a" });
      worker.tell({ type: "ping", number: 1 });
      await worker.message({ type: "pong" });
      expect(settled(worker)).toEqual([]);
      const order = ["c", "a", "d", "b"];
      for (const name of order) {
        await worker.invoke(`exec-opens-${name}`, `/open/${name}`);
        await worker.message({ type: "settled", invocation: `exec-${name}` });
        expect(linesOf(worker, name)).toEqual(["done"]);
      }
      expect(settled(worker)).toEqual(order.map((name) => `exec-${name}`));
    },
  ));

test("a context shows its own invocation only, and nothing of the shim's", () =>
  withFunction(
    `${gates}
     const seen = [];
     export default async (req, ctx) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       seen.push(ctx);
       const before = [ctx.invocationId, ctx.deadline];
       await hold(name);
       try { ctx.invocationId = "exec-other"; } catch {}
       const statics = ["id", "began", "returned", "returnedLate", "dropped", "isLate"].filter((key) => key in ctx);
       return Response.json({ own: seen.filter((it) => it === ctx).length, keys: Object.keys(ctx), statics, same: ctx.invocationId === before[0] && ctx.deadline === before[1], id: ctx.invocationId, left: ctx.remainingMs() });
     }`,
    async (worker) => {
      const left = { a: 9_000, b: 2_000_000, c: 300_000 };
      const answers = Object.entries(left).map(([name, ms]) => worker.invoke(`exec-${name}`, `/wait/${name}`, {}, ms));
      for (const name of ["b", "c", "a"]) await open(worker, name);
      for (const [i, [name, ms]] of Object.entries(left).entries()) {
        const body: any = await (await answers[i]!).json();
        expect(body).toMatchObject({ own: 1, keys: [], statics: [], same: true, id: `exec-${name}` });
        expect(body.left).toBeWithin(ms - 5_000, ms + 1);
      }
    },
  ));

/** Opens a gate as soon as it exists. */
async function open(worker: Worker, name: string): Promise<void> {
  for (;;) {
    const answer = await worker.invoke("exec-opens", `/open/${name}`);
    if (answer.status === 200) return;
  }
}

test("errors nobody handles: known where the context tells, a marked guess for one alone, none of several", () =>
  withFunction(
    `${gates}
     export default async (req, { waitUntil }) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       const fail = (how) => { throw new Error(how + " " + name); };
       if (what === "alone") {
         (async () => { await Bun.sleep(1); fail("floating"); })();
         await Bun.sleep(2);
         return new Response(name);
       }
       setTimeout(() => fail("timer"), 1);
       (async () => { await hold("floating-" + name); fail("floating"); })();
       waitUntil(hold("background-" + name).then(() => fail("background")));
       await hold(name);
       return new Response(name);
     }`,
    async (worker) => {
      const about = (message: string) => worker.message({ type: "rejection", message });
      const answers = [worker.invoke("exec-a", "/wait/a"), worker.invoke("exec-b", "/wait/b")];
      for (const name of ["a", "b"]) {
        const known: Message = await about(`timer ${name}`);
        expect([known.invocation, known.guessed]).toEqual([`exec-${name}`, undefined]);
      }
      // Either of the two running invocations may have done it, or one that has ended meanwhile.
      await open(worker, "floating-b");
      expect((await about("floating b")).invocation).toBeNull();
      await open(worker, "background-b");
      expect(await about("background b")).toMatchObject({ invocation: "exec-b" });
      await open(worker, "b");
      expect((await answers[1]!).status).toBe(200);
      await open(worker, "floating-a");
      expect((await about("floating a")).invocation).toBeNull();
      for (const gate of ["background-a", "a"]) await open(worker, gate);
      expect((await answers[0]!).status).toBe(200);
      expect(await about("background a")).toMatchObject({ invocation: "exec-a" });
      // No other invocation ran beside this one.
      expect((await worker.invoke("exec-c", "/alone/c")).status).toBe(200);
      expect(await about("floating c")).toMatchObject({ invocation: "exec-c", guessed: true });
      expect(worker.all({ guessed: true }).length).toBe(1);
    },
  ));

test("groups and timers of one invocation are not those of another", () =>
  withFunction(
    `${gates}
     console.group("import"); console.log("inside"); console.groupEnd(); console.time("since import");
     export default async (req) => {
       const [what, name] = route(req);
       const opened = opens(what, name);
       if (opened) return opened;
       console.time("t");
       console.group("group", name);
       await hold(name);
       console.log("in group", name);
       console.groupEnd();
       console.groupEnd();
       console.log("behind", name);
       console.timeEnd("t");
       console.timeEnd("t");
       console.timeLog("since import");
       return new Response(name);
     }`,
    async (worker) => {
      await worker.message({ invocation: null, message: "  inside" });
      const answers = ["a", "b"].map((name) => worker.invoke(`exec-${name}`, `/wait/${name}`));
      await until("both wait", () => worker.all({ type: "log", level: "info" }).filter(({ message }) => message.startsWith("group")).length === 2);
      for (const name of ["a", "b"]) {
        await open(worker, name);
        await (await answers[name === "a" ? 0 : 1]!).text();
        const lines = () => worker.all({ type: "log", invocation: `exec-${name}` });
        await until(`all of ${name}`, () => lines().length >= 6);
        const said = lines().map(({ message }) => message.replace(/[\d.]+ms/, "ms"));
        expect(said).toEqual([`group ${name}`, `  in group ${name}`, `behind ${name}`, "t: ms", "Timer 't' does not exist", "since import: ms"]);
      }
    },
  ));
