// A function that bypasses its shim: it writes to the control channel, the pipes and the connections that belong to the
// shim. The path selects the attack.

import { readdirSync, readlinkSync, writeSync } from "node:fs";

/** Another one in each worker. */
const me = crypto.randomUUID();

const never = () => new Promise(() => {});

/** Writes it all, as fast as somebody reads. */
function write(fd, data) {
  let bytes = Buffer.from(data);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(fd, bytes));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Bun.sleepSync(1);
    }
  }
}

/** Writes it again and again. */
function flood(fd, data) {
  for (;;) write(fd, data);
}

const say = (message) => write(0, (typeof message === "string" ? message : JSON.stringify(message)) + "\n");

/** Writes on every socket but the control channel: the one that listens refuses, the rest are the daemon's connections. */
function answer(raw) {
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      if (+name > 2 && readlinkSync(`/proc/self/fd/${name}`).startsWith("socket:")) write(+name, raw);
    } catch {}
  }
}

const head = (...lines) => ["HTTP/1.1 200 OK", ...lines, "", ""].join("\r\n");
const chunked = head("transfer-encoding: chunked");
const endless = () => new ReadableStream({ pull: (it) => it.enqueue("x".repeat(65536)) });

const routes = {
  // Invalid messages on the control channel.
  "control/garbage": () => say("nonsense"),
  "control/binary": () => write(0, new Uint8Array([0xff, 0xfe, 0x00, 0x0a])),
  "control/unknown": () => say({ type: "reboot" }),
  "control/wrong": () => say({ type: "log", level: "loud", invocation: null, message: "m" }),
  "control/nested": () => say("[".repeat(10_000)),
  "control/count": () => say('{"type":"log","level":"info","invocation":null,"message":"m","dropped":18446744073709551615}'),
  "control/dropped": () => {
    for (let time = 0; time < 100; time++) say({ type: "log", level: "info", invocation: null, message: "m", dropped: 4294967295 });
    return new Response("said");
  },
  "control/long": () => flood(0, "x".repeat(65536)),
  "control/spaces": () => say(`{"type":"pong","number":1}${" ".repeat(1 << 20)}`),
  "control/ready": () => say({ type: "ready", bun: "1" }),
  "control/pong": () => say({ type: "pong", number: 1 }),
  "control/log": ({ id }) => say({ type: "log", level: "info", invocation: id, message: "forged" }),
  "control/rejection": ({ id }) => say({ type: "rejection", invocation: id, message: "forged", stack: null }),
  "control/settled": ({ id }) => say({ type: "settled", invocation: id }),

  // Invalid HTTP in place of the function's answer.
  "http/garbage": () => answer("nonsense\r\n\r\n"),
  "http/version": () => answer("HTTP/9.9 200 OK\r\n\r\n"),
  "http/status": () => answer("HTTP/1.1 000 Nothing\r\n\r\n"),
  "http/both": () => answer(head("content-length: 1", "transfer-encoding: chunked") + "x"),
  "http/lengths": () => answer(head("content-length: 1", "content-length: 2") + "x"),
  "http/length": () => answer(head("content-length: -1")),
  "http/encoding": () => answer(head("transfer-encoding: gzip")),
  "http/size": () => answer(chunked + "x\r\n"),
  "http/chunk": () => answer(chunked + "1\r\nxx\r\n"),
  "http/line": () => answer(chunked + "1;" + "x".repeat(10_000)),
  "http/trailers": () => answer(chunked + "0\r\n" + "a: b\r\n".repeat(2_000)),
  "http/hints": () => answer("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)),
  "http/more": () => answer(head("content-length: 1") + "x" + head("content-length: 1") + "y"),

  // Attacks that only harm the function itself.
  "own/headers": () => new Response("x", { headers: Array.from({ length: 300 }, (_, it) => [`h${it}`, "v"]) }),
  "own/large": () => new Response("x", { headers: { large: "x".repeat(300_000) } }),
  "own/character": () => new Response("x", { headers: { a: "\u0001" } }),
  "own/failed": () => new Response('{"message":"as I say"}', { headers: { "x-levain-error": "throw" } }),
  "own/failing": () => new Response(endless(), { headers: { "x-levain-error": "throw" } }),
  "own/pending": () => new Response("done", { headers: { "x-levain-pending": "1", "x-levain-other": "1" } }),
  "own/rejection": () => {
    Promise.reject(new Error("\u0001".repeat(100_000)));
    console.log("\u0001".repeat(100_000));
    return new Response("fine");
  },
  "own/short": async () => {
    answer(head("content-length: 10") + "x");
    await never();
  },
  "own/slow": async () => {
    for (const byte of head(`a: ${"x".repeat(10_000)}`)) {
      answer(byte);
      await Bun.sleep(20);
    }
  },

  // Answers for an invocation that has not arrived yet.
  "next/forged": async () => {
    answer(head("content-length: 6") + "forged");
    return new Response("mine");
  },
  "next/smuggled": () => {
    setTimeout(() => {
      answer(head("content-length: 8") + "smuggled");
      console.log("it is written");
    }, 20);
    return new Response("mine");
  },

  // Endless output.
  "flood/lines": () => flood(1, "\n".repeat(65536)),
  "flood/bytes": () => flood(2, "x".repeat(65536)),
  "flood/single": () => flood(1, "x"),
  "flood/logs": () => flood(0, '{"type":"log","level":"warn","invocation":null,"message":"m"}\n'.repeat(1_000)),
  "flood/console": () => {
    for (;;) console.log("m");
  },
  "flood/settled": ({ own }) => flood(0, `{"type":"settled","invocation":"${own}"}\n`.repeat(1_000)),

  async command({ path, child }) {
    if (child) {
      const code = `(${talk})(${JSON.stringify(path)}).then((it) => process.stdout.write(it))`;
      return new Response(Bun.spawn([process.execPath, "-e", code], { env: { BUN_BE_BUN: "1" } }).stdout);
    }
    return new Response(await talk(path));
  },
};

/** What the command socket answers to STATUS. */
async function talk(path) {
  const status = Buffer.concat([Buffer.from([15, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0x0f, 2, 0, 0, 0]), Buffer.from("{}")]);
  const once = () =>
    new Promise((resolve, reject) => {
      let heard = "";
      const socket = {
        open: (it) => void it.write(status),
        data(it, bytes) {
          heard += bytes.toString("latin1");
          it.end();
        },
        close: () => resolve(heard),
        error: (_, error) => reject(error),
      };
      Bun.connect({ unix: path, socket }).catch(reject);
    });
  // Bun ignores a connection that is closed at once, so the function tries again.
  for (let tries = 1; ; tries++) {
    const heard = await once().catch((error) => (tries < 1_000 ? "" : String(error)));
    if (heard !== "") return heard;
    // Without a pause, the tries would only fill the queue of the socket.
    await Bun.sleep(1);
  }
}

export default async (req, ctx) => {
  const url = new URL(req.url);
  const route = routes[url.pathname.slice(1)];
  if (!route) return new Response(me);
  const result = await route({ ...Object.fromEntries(url.searchParams), own: ctx.invocationId });
  return result ?? never();
};
