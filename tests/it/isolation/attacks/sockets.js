// Attempts on other sockets, which belong to the test, the daemon or another worker.
import { readFileSync } from "node:fs";
import { absent, allowed, attempt, blocked, broken, errnoName, refusal } from "./outcome.js";
import { call } from "./kernel.js";

/** Sends something and answers with the first bytes that come back; none when the other side hangs up. */
function talk(where, request) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" })), 3000);
    const settle = (act) => (value) => {
      clearTimeout(timer);
      act(value);
    };
    const [answer, fail] = [settle(resolve), settle(reject)];
    Bun.connect({
      ...where,
      socket: {
        open: (socket) => void socket.write(request),
        data: (socket, bytes) => {
          answer(Buffer.from(bytes));
          socket.end();
        },
        close: () => answer(Buffer.alloc(0)),
        error: (_, error) => fail(error),
        connectError: (_, error) => fail(error),
      },
    }).catch(fail);
  });
}

async function ask(where, request, isAnswer) {
  try {
    const bytes = await talk(where, request);
    if (bytes.length === 0) return blocked("it hung up");
    return isAnswer(bytes) ? allowed(`${bytes.length} bytes`) : blocked(bytes.toString("latin1").slice(0, 200));
  } catch (error) {
    const code = refusal(error);
    return code ? blocked(code) : broken(String(error?.stack ?? error));
  }
}

/**
 * Asks the daemon for its status, as any client does: itself, and by a child that has left its session and, where it may,
 * lifted the limits it was born with. Nothing is left then by which the daemon could know whose it is.
 */
export const control = async ({ path }) => {
  const [STATUS, SUCCESS] = [0x0f, 0x00];
  const payload = Buffer.from("{}");
  const frame = Buffer.alloc(17);
  frame.writeUInt32LE(13 + payload.length, 0);
  frame.writeBigUInt64LE(1n, 4);
  frame.writeUInt8(STATUS, 12);
  frame.writeUInt32LE(payload.length, 13);
  const request = Buffer.concat([frame, payload]);
  const own = await ask({ unix: path }, request, (bytes) => bytes[12] === SUCCESS);
  if (own.outcome !== "blocked") return own;
  const code = `const { symbols } = require("bun:ffi").dlopen("libc.so.6", {
      setrlimit: { args: ["i32", "ptr"], returns: "i32" },
    });
    for (let limit = 0; limit < 16; limit++) symbols.setrlimit(limit, new BigUint64Array([-1n, -1n]));
    const say = (what) => (console.log(what), process.exit(0));
    setTimeout(say, 3000, "no answer");
    Bun.connect({ unix: ${JSON.stringify(path)}, socket: {
      open: (socket) => void socket.write(Buffer.from("${request.toString("hex")}", "hex")),
      data: (_, bytes) => say(bytes[12]),
      close: () => say("it hung up"),
    } }).catch((error) => say(error.code));`;
  const options = { stdio: ["ignore", "pipe", "pipe"], detached: true, env: {} };
  const child = Bun.spawn([process.execPath, "-e", code], options);
  const said = (await new Response(child.stdout).text()).trim();
  if ((await child.exited) !== 0) return broken(await new Response(child.stderr).text());
  if (said === String(SUCCESS)) return allowed("by a child");
  return isRootWithFixedLimits() ? absent("root may not raise limits here") : blocked([own.detail, said]);
};

/** Whether this process has capabilities, but not the one to raise limits (CAP_SYS_RESOURCE), as root in some machines. */
function isRootWithFixedLimits() {
  const capabilities = BigInt("0x" + /CapEff:\s*(\w+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  return capabilities !== 0n && ((capabilities >> 24n) & 1n) === 0n;
}

/** Calls another worker as the daemon does. */
export const worker = ({ path }) =>
  ask({ unix: path }, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", (bytes) => bytes.toString("latin1").startsWith("HTTP/1.1"));

/** Any other socket of the machine: the test greets who connects. */
export const unix = ({ path }) => ask({ unix: path }, "x", (bytes) => bytes.toString() === "hello");

export const tcp = ({ port }) =>
  ask({ hostname: "127.0.0.1", port: Number(port) }, "x", (bytes) => bytes.toString() === "hello");

/** A socket without a file, which a private root does not hide. */
export const abstract = ({ name }) => {
  const [AF_UNIX, SOCK_STREAM] = [1, 1];
  const descriptor = call("socket", AF_UNIX, SOCK_STREAM, 0);
  if (descriptor < 0) return blocked(`socket ${errnoName(-descriptor)}`);
  const address = Buffer.alloc(2 + 1 + name.length);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(name, 3);
  const result = call("connect", descriptor, address, address.length);
  return result < 0 ? blocked(errnoName(-result)) : allowed("connected");
};

/** Shared memory of System V, by its key. */
export const sharedMemory = ({ key }) => {
  const id = call("shmget", Number(key), 4096, 0);
  return id < 0 ? blocked(errnoName(-id)) : allowed(id);
};

/** Whether the function still has a loopback of its own to talk to itself. */
export const ownLoopback = () =>
  attempt(async () => {
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("own") });
    try {
      const text = await (await fetch(server.url)).text();
      if (text !== "own") throw new Error(text);
    } finally {
      server.stop(true);
    }
  });
