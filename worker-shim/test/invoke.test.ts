import { expect, test } from "bun:test";
import { withFunction, withWorker, until } from "./worker.ts";

const text = async (answer: Response) => [answer.status, await answer.text()];

test("hello: the context, and the headers the function sees", () =>
  withFunction(
    `export default (req, ctx) => Response.json({
      id: ctx.invocationId, fn: ctx.functionName, v: ctx.version, env: ctx.environment, left: ctx.remainingMs(),
      deadline: ctx.deadline - Date.now(), signal: ctx.signal === req.signal, K: ctx.env.K, K2: process.env.K, K3: Bun.env.K,
      header: req.headers.get("x-invocation-id"), hidden: req.headers.has("x-levain-deadline"), url: req.url,
    })`,
    async (worker) => {
      const answer = await worker.invoke("exec-1", "/a/b?c=1");
      expect(answer.status).toBe(200);
      const body: any = await answer.json();
      expect(body).toMatchObject({
        id: "exec-1", fn: "hello", v: "v1", env: "production", signal: true, K: "V", K2: "V", K3: "V",
        header: "exec-1", hidden: false, url: "http://function.test/a/b?c=1",
      });
      expect(body.left).toBeWithin(4_000, 5_001);
      expect(body.deadline).toBeWithin(4_000, 5_010);
    },
    { variables: { K: "V" } },
  ));

test("before the assignment everything else gets 503, after it every path belongs to the function", () =>
  withWorker(async (worker) => {
    expect((await worker.fetch("/")).status).toBe(503);
    expect((await worker.fetch("/assign")).status).toBe(503);
    expect((await worker.assign(`export default (req) => new Response(req.method + new URL(req.url).pathname)`)).status).toBe(200);
    expect(await text(await worker.invoke("e", "/assign", { method: "PUT", body: "{}" }))).toEqual([200, "PUT/assign"]);
    expect(await text(await worker.invoke("e", "/x", { method: "PURGE" }))).toEqual([200, "PURGE/x"]);
  }));

test("console output and rejections of interleaved invocations stay apart", () =>
  withFunction(
    `const gates = new Map();
     export default async (req, ctx) => {
       const name = new URL(req.url).pathname.slice(1);
       if (name === "open") { for (const open of gates.values()) open(); return new Response("opened"); }
       console.log("before", name);
       await new Promise((resolve) => gates.set(name, resolve));
       console.warn("after", name);
       setTimeout(() => console.error("timer", name), 1);
       queueMicrotask(() => console.debug("microtask", name));
       return new Response(new ReadableStream({ async pull(c) { await 1; console.log("pull", name); c.enqueue(name); c.close(); } }));
     }`,
    async (worker) => {
      const names = ["a", "b", "c"];
      const answers = names.map((name) => worker.invoke(`exec-${name}`, `/${name}`));
      await until("three starts", () => worker.all({ type: "log" }).length === 3);
      await worker.invoke("exec-open", "/open");
      expect(await Promise.all(answers.map(async (answer) => (await answer).text()))).toEqual(names);
      for (const name of names) {
        const invocation = `exec-${name}`;
        await worker.message({ type: "log", level: "info", invocation, message: `before ${name}` });
        await worker.message({ type: "log", level: "warn", invocation, message: `after ${name}` });
        await worker.message({ type: "log", level: "error", invocation, message: `timer ${name}` });
        await worker.message({ type: "log", level: "debug", invocation, message: `microtask ${name}` });
        await worker.message({ type: "log", level: "info", invocation, message: `pull ${name}` });
      }
    },
  ));

test("waitUntil marks the answer and settles exactly once", () =>
  withFunction(
    `let open; const gate = new Promise((resolve) => (open = resolve)); const shared = new Response(null, { status: 204 });
     export default (req, { waitUntil }) => {
       switch (new URL(req.url).pathname) {
         case "/wait": waitUntil(gate); waitUntil(Promise.resolve()); return new Response("early");
         case "/empty": waitUntil(gate); return shared;
         case "/shared": return shared;
         case "/throw": waitUntil(gate); throw new Error("no");
         case "/reject": waitUntil(Promise.reject(new Error("background"))); return new Response("ok");
         case "/open": open(); return new Response("opened");
         default: waitUntil(1); return new Response("plain");
       }
     }`,
    async (worker) => {
      for (const [path, status] of [["wait", 200], ["empty", 204], ["empty", 204], ["throw", 500]] as const) {
        const answer = await worker.invoke(`exec-${path}`, `/${path}`);
        expect([answer.status, answer.headers.get("x-levain-pending")]).toEqual([status, "1"]);
        await answer.text();
      }
      // The mark on an answer does not change how it is sent.
      expect((await worker.invoke("exec-wait-2", "/wait")).headers.get("content-length")).toBe("5");
      expect((await worker.invoke("exec-shared", "/shared")).headers.get("x-levain-pending")).toBeNull();
      expect(worker.all({ type: "settled" })).toEqual([]);
      await (await worker.invoke("exec-open", "/open")).text();
      for (const id of ["exec-wait", "exec-wait-2", "exec-empty", "exec-throw"]) await worker.message({ type: "settled", invocation: id });
      await (await worker.invoke("exec-reject", "/reject")).text();
      await worker.message({ type: "rejection", invocation: "exec-reject", message: "background" });
      await worker.message({ type: "settled", invocation: "exec-reject" });
      expect(worker.find({ type: "rejection" })!.guessed).toBeUndefined();
      expect(worker.all({ type: "settled" }).length).toBe(6);
    },
  ));

const streaming = `
  const first = (throws) => { let count = 0; return (c) => { if (count++ > 0) throws(c); else c.enqueue("a"); }; };
  const fail = (name) => { throw new Error("from " + name); };
  class Source { #left = 1; async pull(c) { await 1; if (this.#left-- > 0) c.enqueue("a"); else fail("private"); } }
  const bodies = {
    pull: () => new ReadableStream({ pull: first(() => fail("pull")) }),
    late: () => new ReadableStream({ async pull(c) { c.enqueue("a"); await Bun.sleep(1); fail("late"); } }),
    start: () => new ReadableStream({ async start(c) { c.enqueue("a"); await Bun.sleep(1); fail("start"); } }),
    error: () => new ReadableStream({ start(c) { c.enqueue("a"); setTimeout(() => c.error(new Error("from error")), 1); } }),
    direct: () => new ReadableStream({ type: "direct", async pull(c) { c.write("a"); await c.flush(); await Bun.sleep(1); fail("direct"); } }),
    private: () => new ReadableStream(new Source()),
    generator: async function* () { yield "a"; await Bun.sleep(1); fail("generator"); },
    running: () => (async function* () { yield "a"; await Bun.sleep(1); fail("running"); })(),
    iterable: () => ({ async *[Symbol.asyncIterator]() { yield "a"; await Bun.sleep(1); fail("iterable"); } }),
    transform: () => new ReadableStream({ pull(c) { c.enqueue("a"); } }).pipeThrough(new TransformStream({ transform() { fail("transform"); } })),
    piped: () => new ReadableStream({ async pull(c) { c.enqueue("a"); await Bun.sleep(1); fail("piped"); } }).pipeThrough(new TextEncoderStream()),
  };
  class Mine extends Response { constructor(body) { super(body, { headers: { "x-mine": "1" } }); } }
`;

test("what a body throws while it streams is reported with its invocation", () =>
  withFunction(
    `${streaming}
     export default (req) => {
       const name = new URL(req.url).pathname.slice(1);
       const body = name === "generator" ? bodies[name] : bodies[name]();
       return name === "late" ? new Mine(body) : new Response(body);
     }`,
    async (worker) => {
      const names = "pull late start error direct private generator running iterable transform piped".split(" ");
      for (const name of names) {
        // Bun repeats a GET if nothing of its answer has arrived.
        const answer = worker.invoke(`exec-${name}`, `/${name}`, { method: "POST" }).then((it) => it.text());
        await expect(answer).rejects.toThrow();
        const said = await worker.message({ type: "rejection", invocation: `exec-${name}` });
        expect(said).toMatchObject({ message: `from ${name}` });
        expect(said.guessed).toBeUndefined();
        expect(said.stack).toContain("index.js");
        expect(said.stack).not.toContain("entry.js");
      }
      expect(worker.all({ type: "rejection" }).map((it) => it.message)).toEqual(names.map((it) => `from ${it}`));
    },
  ));

test("bodies are what they are without a watch, and what a function handles itself is not reported", () =>
  withFunction(
    `${streaming}
     const chunks = (...all) => new ReadableStream({ pull(c) { const next = all.shift(); if (next) c.enqueue(next); else c.close(); } });
     const cases = {
       text: () => new Response("text"), json: () => Response.json({ a: 1 }), bytes: () => new Response(new Uint8Array([65])),
       blob: () => new Response(new Blob(["blob"])), form: () => new Response(new URLSearchParams({ a: "b" })), none: () => new Response(),
       stream: () => new Response(chunks("a", "b")), file: () => new Response(Bun.file(import.meta.path)),
       generator: () => new Response(async function* () { yield "a"; yield "b"; }), mine: () => new Mine("mine"),
       piped: () => new Response(chunks("a", "b").pipeThrough(new TransformStream({ transform(chunk, c) { c.enqueue(chunk + "!"); } }))),
       own: async () => { try { await new Response(bodies.pull()).text(); } catch (error) { return new Response("own: " + error.message); } },
       classes: () => {
         const [answer, stream] = [new Mine("x"), chunks("a")];
         return Response.json([Response.name, Response.length, answer instanceof Response, answer instanceof Mine, answer.constructor === Mine,
           new Response().constructor === Response, stream instanceof ReadableStream, Response.redirect("http://a/").status,
           Response.error().type, new TransformStream() instanceof TransformStream, Object.prototype.toString.call(answer)]);
       },
     };
     export default (req) => cases[new URL(req.url).pathname.slice(1)]();`,
    async (worker) => {
      const get = async (name: string) => {
        const answer = await worker.invoke(`exec-${name}`, `/${name}`);
        return [await answer.text(), answer.headers.get("content-length"), answer.headers.get("content-type")];
      };
      const type = { text: "text/plain;charset=utf-8", json: "application/json;charset=utf-8", form: "application/x-www-form-urlencoded;charset=UTF-8" };
      expect(await get("text")).toEqual(["text", "4", type.text]);
      expect(await get("json")).toEqual(['{"a":1}', "7", type.json]);
      expect((await get("bytes")).slice(0, 2)).toEqual(["A", "1"]);
      expect((await get("blob")).slice(0, 2)).toEqual(["blob", "4"]);
      expect(await get("form")).toEqual(["a=b", "3", type.form]);
      expect((await get("none")).slice(0, 2)).toEqual(["", "0"]);
      expect((await get("stream"))[0]).toBe("ab");
      expect((await get("file"))[1]).toMatch(/^\d+$/);
      expect((await get("generator"))[0]).toBe("ab");
      expect((await get("piped"))[0]).toBe("a!b!");
      expect((await get("mine")).slice(0, 2)).toEqual(["mine", "4"]);
      expect((await get("own"))[0]).toBe("own: from pull");
      const classes = JSON.parse((await get("classes"))[0]!);
      expect(classes).toEqual(["Response", 0, true, true, true, true, true, 302, "error", true, "[object Response]"]);
      expect(worker.all({ type: "rejection" })).toEqual([]);
    },
  ));

test("an invocation that is dropped before its request arrives is settled and never begins", () =>
  withFunction(
    `let calls = 0; export default () => new Response(String(++calls));`,
    async (worker) => {
      for (let number = 0; number < 70; number++) worker.tell({ type: "dropped", invocation: `exec-${number}` });
      await worker.message({ type: "settled", invocation: "exec-69" });
      expect((await worker.invoke("exec-69")).status).toBe(499);
      expect((await worker.invoke("exec-6")).status).toBe(499);
      // Only a limited number is remembered, and each is refused once.
      expect(await text(await worker.invoke("exec-5"))).toEqual([200, "1"]);
      expect(await text(await worker.invoke("exec-69"))).toEqual([200, "2"]);
    },
  ));

test("a dropped connection aborts the signal, and the handler's end is reported once", () =>
  withFunction(
    `export default async (req, ctx) => {
       if (new URL(req.url).pathname === "/quick") return new Response("quick");
       console.log("started");
       await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
       console.log("aborted");
       return new Response("nobody reads this");
     }`,
    async (worker) => {
      const caller = new AbortController();
      const answer = worker.invoke("exec-drop", "/", { signal: caller.signal });
      await worker.message({ message: "started" });
      worker.tell({ type: "dropped", invocation: "exec-drop" });
      worker.tell({ type: "something newer" });
      // After this line, everything before it has been read: a later question would bring `settled` again.
      worker.tell({ type: "ping", number: 1 });
      await worker.message({ type: "pong" });
      caller.abort();
      await expect(answer).rejects.toThrow();
      await worker.message({ type: "log", invocation: "exec-drop", message: "aborted" });
      await worker.message({ type: "settled", invocation: "exec-drop" });
      expect(await text(await worker.invoke("exec-quick", "/quick"))).toEqual([200, "quick"]);
      expect(worker.all({ type: "settled" }).length).toBe(1);
    },
  ));

test("whatever is thrown becomes a 500 with name, message and stack", () =>
  withFunction(
    `class Odd extends Error { get message() { throw new Error("inner"); } }
     const values = {
       error: () => new TypeError("boom"), string: () => "plain text", undefined: () => undefined, null: () => null, number: () => 7,
       object: () => ({ code: 1 }), odd: () => new Odd(), proxy: () => new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } }),
       cause: () => new Error("outer", { cause: new Error("root") }), long: () => new Error("é".repeat(50000)), surrogate: () => new Error("\\ud800"),
       frozen: () => Object.freeze(new RangeError("cold")), symbol: () => Symbol("s"),
     };
     export default (req) => {
       const [, way, what] = new URL(req.url).pathname.split("/");
       const value = values[what]();
       if (way === "throw") throw value;
       if (way === "reject") return Promise.reject(value);
       return (async () => { await 1; throw value; })();
     }`,
    async (worker) => {
      const expected: Record<string, object> = {
        error: { name: "TypeError", message: "boom", stack: expect.stringContaining("index.js") },
        string: { name: "ThrownValue", message: "plain text", stack: null },
        undefined: { name: "ThrownValue", message: "undefined was thrown; throw an Error to get a stack", stack: null },
        null: { name: "ThrownValue", message: "null was thrown; throw an Error to get a stack", stack: null },
        number: { name: "ThrownValue", message: "7 was thrown; throw an Error to get a stack", stack: null },
        object: { name: "ThrownValue", stack: null },
        odd: { name: "Error", message: "" },
        proxy: { name: "ThrownValue" },
        cause: { name: "Error", message: "outer", stack: expect.stringMatching(/caused by: Error: root/) },
        long: { message: expect.stringMatching(/^é+… \[cut, 100000 bytes\]$/) },
        surrogate: { message: "\ufffd" },
        frozen: { name: "RangeError", message: "cold" },
        symbol: { name: "ThrownValue" },
      };
      for (const way of ["throw", "reject", "later"])
        for (const [what, shape] of Object.entries(expected)) {
          const answer = await worker.invoke(`exec-${what}`, `/${way}/${what}`);
          expect([answer.status, answer.headers.get("x-levain-error")]).toEqual([500, "throw"]);
          const body: any = await answer.json();
          // Before toMatchObject, which replaces the values by its matchers.
          expect(body.stack ?? "").not.toContain("worker-shim");
          expect(body).toMatchObject(shape);
        }
      expect(worker.all({ type: "rejection" })).toEqual([]);
    },
  ));

test("what is not a Response is named", () =>
  withFunction(
    `class Thing {} ; class Response2 { status = 200 }; Object.defineProperty(Response2, "name", { value: "Response" });
     const values = { undefined: undefined, null: null, string: "x", number: 1, array: [], object: {}, bare: Object.create(null), Thing: new Thing(), other: new Response2(), fn: () => 1, bool: true };
     export default (req) => { const [, way, what] = new URL(req.url).pathname.split("/"); const v = values[what]; return way === "sync" ? v : way === "async" ? Promise.resolve(v) : Bun.sleep(1).then(() => v); }`,
    async (worker) => {
      const words: Record<string, string> = {
        undefined: "undefined", null: "null", string: "a string", number: "a number", array: "an array", object: "a plain object", bare: "a plain object",
        Thing: "an instance of Thing", other: "an instance of another Response class than Bun's", fn: "a function", bool: "a boolean",
      };
      for (const way of ["sync", "async", "late"])
        for (const [what, word] of Object.entries(words)) {
          const answer = await worker.invoke("exec-n", `/${way}/${what}`);
          expect([answer.status, answer.headers.get("x-levain-error")]).toEqual([500, "not_a_response"]);
          expect(await answer.json()).toEqual({ name: "TypeError", message: `the handler returned ${word}; return a Response, for example Response.json(value)`, stack: null });
        }
    },
  ));

test("a Response that cannot be sent is an error, not a hang", () =>
  withFunction(
    `const once = new Response("once");
     export default async (req) => {
       switch (new URL(req.url).pathname) {
         case "/used": { const r = new Response("x"); await r.text(); return r; }
         case "/locked": { const r = new Response(new ReadableStream()); r.body.getReader(); return r; }
         case "/error": return Response.error();
         default: return once;
       }
     }`,
    async (worker) => {
      expect(await text(await worker.invoke("e", "/once"))).toEqual([200, "once"]);
      for (const path of ["/used", "/locked", "/error", "/once"]) {
        const answer = await worker.invoke("e", path);
        expect([path, answer.status, answer.headers.get("x-levain-error")]).toEqual([path, 500, "throw"]);
        expect(((await answer.json()) as any).message).not.toBe("");
      }
    },
  ));

test("answers pass untouched: streams, 204, redirects, several Set-Cookie, HEAD", () =>
  withFunction(
    `export default async (req) => {
       switch (new URL(req.url).pathname) {
         case "/204": return new Response(null, { status: 204 });
         case "/redirect": return Response.redirect("/there", 307);
         case "/cookies": { const h = new Headers(); h.append("set-cookie", "a=1"); h.append("set-cookie", "b=2"); return new Response("c", { headers: h }); }
         case "/bytes": return new Response(new Uint8Array([0, 255, 1]));
         case "/echo": return new Response(req.body, { headers: { "content-type": req.headers.get("content-type") } });
         case "/form": return Response.json(Object.fromEntries(await req.formData()));
         default: return new Response("12345", { status: 418 });
       }
     }`,
    async (worker) => {
      expect((await worker.invoke("e", "/204")).status).toBe(204);
      const redirect = await worker.invoke("e", "/redirect");
      expect([redirect.status, redirect.headers.get("location")]).toEqual([307, "/there"]);
      expect((await worker.invoke("e", "/cookies")).headers.getSetCookie()).toEqual(["a=1", "b=2"]);
      expect(new Uint8Array(await (await worker.invoke("e", "/bytes")).arrayBuffer())).toEqual(new Uint8Array([0, 255, 1]));
      const head = await worker.invoke("e", "/", { method: "HEAD" });
      expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([418, "5", ""]);
      const big = new Uint8Array(3_000_000).map((_, i) => i * 7);
      const echoed = await worker.invoke("e", "/echo", { method: "POST", body: big, headers: { "content-type": "application/x-test" } });
      expect(echoed.headers.get("content-type")).toBe("application/x-test");
      expect(Bun.hash(await echoed.arrayBuffer())).toBe(Bun.hash(big));
      const form = new FormData();
      form.set("a", "b");
      expect(await (await worker.invoke("e", "/form", { method: "POST", body: form })).json()).toEqual({ a: "b" });
    },
  ));

test("a stream is sent as it is produced, and one that fails cuts the body", () =>
  withFunction(
    `let open; const gate = new Promise((resolve) => (open = resolve));
     export default (req) => {
       switch (new URL(req.url).pathname) {
         case "/open": open(); return new Response("opened");
         case "/slow": return new Response(new ReadableStream({ async start(c) { c.enqueue("first,"); await gate; c.enqueue("second"); c.close(); } }));
         case "/fail": return new Response(new ReadableStream({ async start(c) { c.enqueue("first,"); await Bun.sleep(1); c.error(new Error("mid-stream")); } }));
         case "/pull": return new Response(new ReadableStream({ async pull(c) { if (this.again) throw new Error("in pull"); this.again = true; c.enqueue("first,"); await Bun.sleep(1); } }));
         case "/generator": return new Response((async function* () { yield "first,"; await Bun.sleep(1); throw new Error("in generator"); })());
       }
     }`,
    async (worker) => {
      const slow = await worker.invoke("exec-slow", "/slow");
      const reader = slow.body!.getReader();
      expect(new TextDecoder().decode((await reader.read()).value)).toBe("first,");
      await worker.invoke("exec-open", "/open");
      expect(new TextDecoder().decode((await reader.read()).value)).toBe("second");
      for (const path of ["/fail", "/pull", "/generator"]) {
        const answer = await worker.invoke(`exec${path}`, path);
        await expect(answer.text()).rejects.toThrow();
      }
    },
  ));

test("a stream dropped before or after its first chunk is cancelled, and settled when asked", () =>
  withFunction(
    `export default (req) => {
       const early = req.url.endsWith("/early");
       let sent = 0;
       return new Response(new ReadableStream({
         async pull(c) { if (early || sent++) { console.log("waiting"); await new Promise(() => {}); } c.enqueue("chunk"); },
         cancel() { console.log("cancelled"); },
       }));
     }`,
    async (worker) => {
      for (const name of ["early", "late"]) {
        const invocation = `exec-${name}`;
        const caller = new AbortController();
        const answer = worker.invoke(invocation, `/${name}`, { signal: caller.signal }).then((answer) => answer.text());
        await worker.message({ invocation, message: "waiting" });
        caller.abort();
        await expect(answer).rejects.toThrow();
        await worker.message({ invocation, message: "cancelled" });
        worker.tell({ type: "dropped", invocation });
        await worker.message({ type: "settled", invocation });
      }
      expect(worker.all({ type: "settled" }).length).toBe(2);
    },
  ));

test("waitUntil while streaming, after everything settled, does not settle twice", () =>
  withFunction(
    `export default (req, ctx) => {
       ctx.waitUntil(Promise.resolve());
       return new Response(new ReadableStream({
         async start(c) { c.enqueue("a"); await Bun.sleep(2); ctx.waitUntil(Promise.resolve()); await Bun.sleep(2); console.log("last"); c.close(); },
       }));
     }`,
    async (worker) => {
      await (await worker.invoke("exec-1")).text();
      await worker.message({ message: "last" });
      expect(worker.all({ type: "settled" }).length).toBe(1);
    },
  ));
