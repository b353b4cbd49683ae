// The control channel: file descriptor 0 is the worker's end of a socket pair, on which it writes one JSON object a line.
//
// Writes are synchronous, so a line printed before `process.exit` is not lost. The daemon may ask about a connection it dropped, and whether
// the event loop turns; the end of its side means that it is gone, and the worker with it. A slow daemon delays a worker for at most
// STALL_MS_MAX, then lines are dropped and counted; `ready`, `settled` and `pong` are never dropped, they wait for room.

import { quote } from "./text.ts";
import type { LogLevel } from "./protocol.ts";

/** How long one full channel may hold up the function before log lines are dropped. */
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
/** What the kernel did not take yet: the tail of a line begun, and whole lines that must not be dropped. */
let backlog: Uint8Array[] = [];
/** The last attempt found the channel full: do not make the function wait again until there is room. */
let stalled = false;
/** Lines dropped since the last one that went out. */
let dropped = 0;

/** The daemon is gone: leave without running the function's exit handlers, which could hold us up. */
function leave(): never {
  // As process 1 of a namespace a signal from inside is ignored, so the exit below it is needed too.
  try {
    kill(pid, "SIGKILL");
  } catch {}
  return exit(1);
}

/** What the daemon has written of a line that is not complete. */
let partial = "";

/** The daemon's lines, `Dropped` and `Ping`. What cannot be read is left alone, so that later versions may say more. */
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
    // The types know no `fd`; Bun does, and it is the only way to watch for the end without a reading thread.
    fd: 0,
    socket: { data: (_: unknown, bytes: Uint8Array) => read(bytes, onDropped), end: leave, close: leave, error: leave, drain: flush },
  } as any);
  write = socket.write.bind(socket) as (bytes: Uint8Array) => number;
}

/** Writes what it can of the backlog; true when nothing is left. */
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

/** Waits a bounded time for the backlog to drain; true when it did. */
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

/** A line that may be dropped; it carries the number of lines dropped before it. */
function sendDroppable(head: string): void {
  const count = dropped;
  if (send(count === 0 ? `${head}}\n` : `${head},"dropped":${count}}\n`, true)) dropped -= count;
}

const quoteId = (invocation: string | null) => (invocation === null ? "null" : quote(invocation));

// The lines are put together by hand: it is faster than an object through JSON.stringify, and no `toJSON` that a function
// adds to a prototype has a say in it.

/** The HTTP server listens. */
export function sendReady(): void {
  send(`{"type":"ready","bun":${quote(Bun.version)}}\n`, false);
}

/** One record of `console.*`, already cut to size. */
export function sendLog(level: LogLevel, invocation: string | null, message: string): void {
  sendDroppable(`{"type":"log","level":"${level}","invocation":${quoteId(invocation)},"message":${quote(message)}`);
}

/** An error nobody handled. `guessed` says that the invocation is inferred, not known. */
export function sendRejection(invocation: string | null, guessed: boolean, message: string, stack: string | null): void {
  sendDroppable(
    `{"type":"rejection","invocation":${quoteId(invocation)}${guessed ? ',"guessed":true' : ""},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}`,
  );
}

/** The event loop turns: the question was read. */
function sendPong(number: number): void {
  send(`{"type":"pong","number":${+number}}\n`, false);
}

/** The invocation holds nothing of this worker any more. */
export function sendSettled(invocation: string): void {
  send(`{"type":"settled","invocation":${quote(invocation)}}\n`, false);
}
