// One invocation: the `ctx` of the function, and the shim's own state for it.

import type { AsyncLocalStorage } from "node:async_hooks";
import { sendRejection, sendSettled } from "./control.ts";
import { errorParts } from "./text.ts";

const now = performance.now.bind(performance);
const timeOrigin = performance.timeOrigin;
const NativePromise = Promise;

/** Facts shared by all invocations of one worker. */
export interface FunctionInfo {
  name: string;
  version: string;
  environment: string;
}

/** Ties console output and errors to the invocation whose code, however deferred, is running. */
export let currentInvocation: AsyncLocalStorage<Context>;

/** Must be called before any function runs. Not done at import: the module takes a millisecond to load, which would delay the start. */
export function openContext(): void {
  const { AsyncLocalStorage } = process.getBuiltinModule("node:async_hooks");
  currentInvocation = new AsyncLocalStorage();
}

/** Invocations whose handler or `waitUntil` promises have not ended. Invocations that answer at once are never added. */
const running = new Set<Context>();

/** Ids of dropped invocations that were not running then: at most LATE_MAX, oldest first. */
const late = new Set<string>();
const LATE_MAX = 64;

/**
 * The invocation to which an unhandled rejection is attributed. Bun calls the listener outside every asynchronous context, and a promise does
 * not tell where it was made, so this is a guess: the last invocation, unless another ran beside it. Its late work is the likeliest source.
 */
let guess: string | null = null;

/** Reports an unhandled error, with the invocation if it is known or can be inferred. */
export function reportUnhandled(error: unknown): void {
  const context = currentInvocation.getStore();
  const id = context ? Context.id(context) : guess;
  report(id, !context && id !== null, error);
}

function report(id: string | null, guessed: boolean, error: unknown): void {
  const { name, message, stack } = errorParts(error);
  sendRejection(id, guessed, message === "" ? name : message, stack);
}

/**
 * The second argument of a handler. Everything is a getter on the prototype, so an invocation that ignores `ctx` pays for one small
 * object. The state is private: a function can neither rename its invocation nor settle it.
 */
export class Context {
  readonly #id: string;
  readonly #info: FunctionInfo;
  readonly #request: Request;
  /** On the monotonic clock, so that setting the system's clock changes nothing. */
  readonly #endsAt: number;
  /** `waitUntil` promises that have not settled. */
  #pending = 0;
  #returned = false;
  /** The daemon waits for `settled`: the answer announced it, or the connection was dropped before there was an answer. */
  #awaited = false;

  constructor(id: string, leftMs: string | null, request: Request, info: FunctionInfo) {
    this.#id = id;
    this.#info = info;
    this.#request = request;
    this.#endsAt = leftMs === null ? Infinity : now() + +leftMs;
    guess = running.size === 0 && id !== "" ? id : null;
  }

  get invocationId(): string {
    return this.#id;
  }
  get functionName(): string {
    return this.#info.name;
  }
  get version(): string {
    return this.#info.version;
  }
  get environment(): string {
    return this.#info.environment;
  }
  /** Time at which the invocation times out: milliseconds since the epoch, as `Date.now()` counts; Infinity without a deadline. */
  get deadline(): number {
    return Math.round(timeOrigin + this.#endsAt);
  }
  /** Milliseconds left, never negative. A function, bound: it may be taken out of the object. */
  get remainingMs(): () => number {
    return () => Math.max(0, Math.round(this.#endsAt - now()));
  }
  /** Aborts when the caller went away or the deadline passed. Identical to `req.signal`. */
  get signal(): AbortSignal {
    return this.#request.signal;
  }
  /** The variables of this function: `process.env`. */
  get env(): Record<string, string | undefined> {
    return process.env;
  }
  /** Keeps the invocation alive after its answer until the promise settles. Bound: it may be taken out of the object. */
  get waitUntil(): (promise: unknown) => void {
    return (promise) => this.#waitUntil(promise);
  }

  #waitUntil(promise: unknown): void {
    this.#pending++;
    running.add(this);
    NativePromise.resolve(promise)
      .catch((error) => report(this.#id, false, error))
      .then(() => {
        this.#pending--;
        this.#settleIfDone();
      });
  }

  #settleIfDone(): void {
    if (!this.#returned || this.#pending > 0) return;
    running.delete(this);
    if (!this.#awaited) return;
    this.#awaited = false;
    sendSettled(this.#id);
  }

  // The shim's side. Static, so that none of it is reachable from a function's `ctx`.

  static id(context: Context): string {
    return context.#id;
  }

  /** Reports an error of the answer's body. If the caller is gone, the error is most likely a consequence of that, and is not reported. */
  static failed(context: Context, error: unknown): void {
    if (!context.#request.signal.aborted) report(context.#id, false, error);
  }

  /** The handler returned a promise that is not settled. */
  static began(context: Context): void {
    running.add(context);
  }

  /** Marks the handler as ended. True if `waitUntil` promises are pending, so that the answer must announce it. */
  static returned(context: Context): boolean {
    context.#returned = true;
    const pending = context.#pending > 0;
    if (pending) context.#awaited = true;
    return pending;
  }

  /** Like `returned`, for a handler that ended some time after it was called: the connection may have been dropped meanwhile. */
  static returnedLate(context: Context): boolean {
    const pending = Context.returned(context);
    // A signal that is read only after the connection was dropped shows it too, so no listener is needed per
    // invocation.
    if (context.#request.signal.aborted) context.#awaited = true;
    context.#settleIfDone();
    return pending;
  }

  /**
   * Handles the daemon's question about a connection it dropped. Without it, the daemon would not learn the end of an invocation whose handler
   * had already returned: Bun sends the head of a stream with its first chunk, which can be much later, and an answer may be lost on its way.
   * A listener on each signal would also tell, but costs every invocation a microsecond.
   */
  static dropped(id: string): void {
    for (const context of running) if (context.#id === id) return void (context.#awaited = true);
    // The invocation is over, or its request is still on its way: the two channels have no order. Then it must not
    // begin.
    if (late.size === LATE_MAX) for (const oldest of late) if (late.delete(oldest)) break;
    late.add(id);
    sendSettled(id);
  }

  /** Whether the daemon dropped this invocation before its request arrived here. */
  static isLate(id: string): boolean {
    return late.size > 0 && late.delete(id);
  }
}
