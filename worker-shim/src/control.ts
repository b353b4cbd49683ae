// The control channel: file descriptor 0 is the worker's end of a socket pair, to which the shim writes one JSON object
// per line.
//
// Writes are synchronous, so a line printed before `process.exit` is not lost. The daemon may ask about a connection it
// dropped, and whether the event loop turns; the end of its side means that the daemon is gone, and the worker exits. A
// slow daemon delays a worker for at most STALL_MS_MAX, then lines are dropped and counted; `ready`, `settled` and
// `pong` are never dropped, they wait for room.

import { quote } from "./text.ts";
import type { LogLevel } from "./protocol.ts";

/** Time for which one full channel may hold up the function before log lines are dropped. */
const STALL_MS_MAX = 50;

const { sleepSync } = Bun;
const encoder = new TextEncoder();
const encode = encoder.encode.bind(encoder);
const decoder = new TextDecoder();
const decode = (bytes: Uint8Array) => decoder.decode(bytes);
const parse = JSON.parse;
const kill = process.kill.bind(process);
const exit = ((process as any).reallyExit ?? process.exit).bind(process);
const pid = process.pid;

let write: (bytes: Uint8Array) => number;
/** Bytes that the kernel has not taken yet: the tail of a partly written line, and whole lines that must not be dropped. */
let backlog: Uint8Array[] = [];
/** Whether the last attempt found the channel full: the function does not wait again until there is room. */
let stalled = false;
/** Lines dropped since the last one that went out. */
let dropped = 0;

/** Exits because the daemon is gone, without the function's exit handlers, which could block. */
function leave(): never {
  // As process 1 of a namespace, a signal from inside is ignored, so the exit below is needed too.
  try {
    kill(pid, "SIGKILL");
  } catch {}
  return exit(1);
}

/** An incomplete line from the daemon. */
let partial = "";

/** Handles the daemon's lines, `Dropped` and `Ping`. Unknown messages are ignored, so that later versions may send more. */
function read(bytes: Uint8Array, onDropped: (invocation: string) => void): void {
  const lines = (partial + decode(bytes)).split("\n");
  partial = lines.pop()!;
  for (const line of lines) {
    try {
      const message = parse(line);
      if (message.type === "dropped") onDropped(message.invocation);
      else if (message.type === "ping") sendPong(message.number);
    } catch {}
  }
}

/** Takes over file descriptor 0. */
export async function openControl(onDropped: (invocation: string) => void): Promise<void> {
  const socket = await Bun.connect({
    // The types do not know `fd`; Bun does, and no other way watches for the end without a reading thread.
    fd: 0,
    socket: { data: (_: unknown, bytes: Uint8Array) => read(bytes, onDropped), end: leave, close: leave, error: leave, drain: flush },
  } as any);
  write = socket.write.bind(socket) as (bytes: Uint8Array) => number;
}

/** Writes as much of the backlog as possible; true if it is empty then. */
function flush(): boolean {
  while (backlog.length > 0) {
    const bytes = backlog[0]!;
    const written = write(bytes);
    if (written < 0) leave();
    if (written < bytes.length) {
      backlog[0] = bytes.subarray(written);
      return false;
    }
    backlog.shift();
  }
  stalled = false;
  return true;
}

/** Waits a bounded time for the backlog to drain; true if it did. */
function flushPatiently(): boolean {
  if (flush()) return true;
  if (stalled) return false;
  for (let waited = 0; waited < STALL_MS_MAX; waited++) {
    sleepSync(1);
    if (flush()) return true;
  }
  stalled = true;
  return false;
}

function send(line: string, droppable: boolean): boolean {
  if (backlog.length > 0 && !flushPatiently() && droppable) {
    dropped++;
    return false;
  }
  backlog.push(encode(line));
  if (!flush()) flushPatiently();
  return true;
}

/** Sends a line that may be dropped, with the number of lines dropped before it. */
function sendDroppable(head: string): void {
  const count = dropped;
  if (send(count === 0 ? `${head}}\n` : `${head},"dropped":${count}}\n`, true)) dropped -= count;
}

const quoteId = (invocation: string | null) => (invocation === null ? "null" : quote(invocation));

// The lines are assembled by hand: this is faster than an object through JSON.stringify, and a `toJSON` that a function
// adds to a prototype cannot change them.

/** Reports that the HTTP server listens. */
export function sendReady(): void {
  send(`{"type":"ready","bun":${quote(Bun.version)}}\n`, false);
}

/** Sends one record of `console.*`, already cut to size. */
export function sendLog(level: LogLevel, invocation: string | null, message: string): void {
  sendDroppable(`{"type":"log","level":"${level}","invocation":${quoteId(invocation)},"message":${quote(message)}`);
}

/** Reports an unhandled error. `guessed` marks an invocation that is inferred, not known. */
export function sendRejection(invocation: string | null, guessed: boolean, message: string, stack: string | null): void {
  sendDroppable(
    `{"type":"rejection","invocation":${quoteId(invocation)}${guessed ? ',"guessed":true' : ""},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}`,
  );
}

/** Answers a ping, which shows that the event loop turns. */
function sendPong(number: number): void {
  send(`{"type":"pong","number":${+number}}\n`, false);
}

/** Reports that the invocation uses nothing of this worker any more. */
export function sendSettled(invocation: string): void {
  send(`{"type":"settled","invocation":${quote(invocation)}}\n`, false);
}
