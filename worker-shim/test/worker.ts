// Real workers for the tests: a Bun process that runs the shim like the daemon, with a socket pair as its stdin.

import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export const shim = join(import.meta.dir, "../dist/entry.js");
export const bundles = join(import.meta.dir, "../../bundles");

const libc = dlopen("libc.so.6", { socketpair: { args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 } });

function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  const AF_UNIX = 1;
  const SOCK_STREAM = 1;
  if (libc.symbols.socketpair(AF_UNIX, SOCK_STREAM, 0, ptr(fds)) !== 0) throw new Error("socketpair failed");
  return [fds[0]!, fds[1]!];
}

/** A record to compare: absent fields stay undefined. */
export type Message = Record<string, any>;

/** Waits until `probe` returns something truthy, or fails after five seconds. */
export async function until<T>(what: string, probe: () => T | undefined | false | null): Promise<T> {
  const deadline = performance.now() + 5_000;
  for (;;) {
    const found = probe();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await Bun.sleep(1);
  }
}

let unique = 0;

export class Worker {
  readonly directory = mkdtempSync(join(tmpdir(), "levain-shim-"));
  /** Every message of the control channel so far. */
  readonly messages: Message[] = [];
  /** Lines of the control channel that are not messages. */
  readonly garbage: string[] = [];
  process!: Bun.Subprocess<any, "pipe", "pipe">;
  #control: any;
  #partial = "";
  #paused = false;
  #decoder = new TextDecoder();

  static async start(files: Record<string, string> = {}, options: { entry?: string } = {}): Promise<Worker> {
    const worker = new Worker();
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(worker.directory, name)), { recursive: true });
      writeFileSync(join(worker.directory, name), text);
    }
    const [ours, theirs] = socketPair();
    worker.process = Bun.spawn({
      cmd: [process.execPath, "--no-env-file", "--config=/dev/null", "--no-install", options.entry ?? shim, "s"],
      cwd: worker.directory,
      env: {
        PATH: process.env.PATH,
        HOME: worker.directory,
        TMPDIR: worker.directory,
        BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0",
        DO_NOT_TRACK: "1",
      },
      stdin: theirs,
      stdout: "pipe",
      stderr: "pipe",
    });
    closeSync(theirs);
    worker.#control = await Bun.connect({ fd: ours, socket: { data: (_: unknown, bytes: Uint8Array) => worker.#read(bytes) } } as any);
    await until("ready", () => worker.messages.find(({ type }) => type === "ready") || worker.process.exitCode !== null);
    return worker;
  }

  #read(bytes: Uint8Array): void {
    const lines = (this.#partial + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) {
      try {
        this.messages.push(JSON.parse(line));
      } catch {
        this.garbage.push(line);
      }
    }
  }

  /** Stops reading the control channel, like a daemon that is too busy. */
  pauseControl(): void {
    this.#control.pause();
  }
  resumeControl(): void {
    this.#control.resume();
  }
  /** Sends a message to the worker, like the daemon. */
  tell(message: Message): void {
    this.#control.write(`${JSON.stringify(message)}\n`);
  }
  /** Ends the daemon's side. */
  closeControl(): void {
    this.#control.terminate();
  }

  fetch(path: string, init: RequestInit & Record<string, any> = {}): Promise<Response> {
    return fetch(`http://function.test${path}`, { unix: join(this.directory, "s"), redirect: "manual", ...init } as any);
  }

  /** Sends `PUT /assign`; `source` is written to a new file, `entry` names an existing one. */
  async assign(source: string | { entry: string }, more: Message = {}, name = "index.js"): Promise<{ status: number; body: any }> {
    let entry: string;
    if (typeof source === "string") {
      entry = join(this.directory, `v${++unique}`, name);
      mkdirSync(dirname(entry));
      writeFileSync(entry, source);
    } else entry = source.entry;
    const order = { function: "hello", function_id: "func-1", version: "v1", environment: "production", entry, handler: "default", ...more };
    const answer = await this.fetch("/assign", { method: "PUT", body: JSON.stringify(order) });
    return { status: answer.status, body: await answer.json() };
  }

  /** Runs the rehearsal of a prewarmed worker. */
  rehearse(): Promise<Response> {
    const order = { function: "", function_id: "", version: "", environment: "", entry: join(dirname(shim), "rehearsal.js"), handler: "default" };
    return this.fetch("/rehearsal", { method: "PUT", body: JSON.stringify(order) });
  }

  /** Sends one invocation, with the headers that the daemon adds. */
  invoke(id: string, path = "/", init: RequestInit = {}, deadlineMs = 5_000): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("x-invocation-id", id);
    headers.set("x-levain-deadline", String(deadlineMs));
    return this.fetch(path, { ...init, headers });
  }

  find(wanted: Message): Message | undefined {
    return this.messages.find((message) => Object.entries(wanted).every(([key, value]) => (value instanceof RegExp ? value.test(message[key]) : message[key] === value)));
  }
  all(wanted: Message): Message[] {
    return this.messages.filter((message) => Object.entries(wanted).every(([key, value]) => message[key] === value));
  }
  /** Waits for a control message with these fields. */
  message(wanted: Message): Promise<Message> {
    return until(`${Bun.inspect(wanted)} in ${Bun.inspect(this.messages)}`, () => this.find(wanted));
  }

  async stop(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
    this.#control.terminate();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Runs `body` with a worker of this function, and stops the worker in every case. */
export async function withFunction(source: string, body: (worker: Worker) => Promise<void>, more: Message = {}): Promise<void> {
  const worker = await Worker.start();
  try {
    const { status, body: answer } = await worker.assign(source, more);
    if (status !== 200) throw new Error(`assign failed: ${JSON.stringify(answer)}`);
    await body(worker);
  } finally {
    await worker.stop();
  }
}

export async function withWorker(body: (worker: Worker) => Promise<void>, files: Record<string, string> = {}): Promise<void> {
  const worker = await Worker.start(files);
  try {
    await body(worker);
  } finally {
    await worker.stop();
  }
}

/** A golden message: `tests/golden/worker/<name>.json`. */
export function golden(name: string): any {
  return JSON.parse(readFileSync(join(import.meta.dir, "../../tests/golden/worker", `${name}.json`), "utf8"));
}
