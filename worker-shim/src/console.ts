// Turns `console.*` into log messages on the control channel, tied to the invocation that prints. `process.stdout`,
// `process.stderr` and `console.write` are unchanged: raw output on the worker's pipes.
//
// A line belongs to the invocation in whose asynchronous context it is printed. Bun loses that context in the body of
// an async generator or of a `direct` stream that is an answer, and in message handlers of a MessagePort or a Worker:
// such lines have no invocation.

import { Context, currentInvocation } from "./context.ts";
import { sendLog } from "./control.ts";
import { LOG_LINE_BYTES_DEFAULT, LOG_LINE_BYTES_FLOOR, type LogLevel } from "./protocol.ts";
import { cut, format, show, stackOf } from "./text.ts";

const { inspect } = Bun;
const now = performance.now.bind(performance);

let bytesMax = LOG_LINE_BYTES_DEFAULT;

/** State of `console.group` and `console.time`. */
interface Begun {
  indent: string;
  timers: Map<string, number>;
}

/** State per invocation: a group of one invocation must not indent the lines of concurrent ones. */
const begun = new WeakMap<Context, Begun>();
/** State of code outside all invocations, such as the import. */
const begunByWorker: Begun = { indent: "", timers: new Map() };

function begunHere(): Begun {
  const context = currentInvocation.getStore();
  if (!context) return begunByWorker;
  let found = begun.get(context);
  if (!found) begun.set(context, (found = { indent: "", timers: new Map() }));
  return found;
}

export function setLogLineBytesMax(bytes: unknown): void {
  if (typeof bytes === "number" && bytes >= 0) bytesMax = Math.max(LOG_LINE_BYTES_FLOOR, Math.floor(bytes));
}

function print(level: LogLevel, text: string): void {
  const context = currentInvocation.getStore();
  const indent = (context ? begun.get(context)?.indent : begunByWorker.indent) ?? "";
  if (indent !== "") text = indent + text.replaceAll("\n", `\n${indent}`);
  sendLog(level, context ? Context.id(context) : null, cut(text, bytesMax));
}

const at =
  (level: LogLevel) =>
  (...args: unknown[]): void =>
    print(level, format(args));

/** Replaces the printing methods on the one console object, which `node:console` exports too. */
export function captureConsole(): void {
  const counts = new Map<string, number>();
  const elapsed = (label: string, rest: unknown[]): void => {
    const since = begunHere().timers.get(label) ?? begunByWorker.timers.get(label);
    if (since === undefined) return print("warn", `Timer '${label}' does not exist`);
    const text = `${label}: ${(now() - since).toFixed(3)}ms`;
    print("info", rest.length === 0 ? text : `${text} ${format(rest)}`);
  };
  const group = (...args: unknown[]): void => {
    if (args.length > 0) print("info", format(args));
    begunHere().indent += "  ";
  };
  Object.assign(console, {
    log: at("info"),
    info: at("info"),
    debug: at("debug"),
    warn: at("warn"),
    error: at("error"),
    dirxml: at("info"),
    trace(...args: unknown[]) {
      const frames = stackOf(new Error("trace"))?.split("\n").slice(1).join("\n") ?? "";
      print("debug", `Trace${args.length > 0 ? `: ${format(args)}` : ""}\n${frames}`);
    },
    assert(condition: unknown, ...args: unknown[]) {
      if (!condition) print("error", args.length > 0 ? `Assertion failed: ${format(args)}` : "Assertion failed");
    },
    dir(value: unknown, options?: object) {
      print("info", show(value, { depth: 2, ...options, colors: false }));
    },
    table(data: unknown, columns?: string[]) {
      try {
        print("info", typeof data === "object" && data !== null ? inspect.table(data as object, columns as string[], { colors: false }).trimEnd() : format([data]));
      } catch {
        print("info", format([data]));
      }
    },
    count(label: unknown = "default") {
      const key = String(label);
      const count = (counts.get(key) ?? 0) + 1;
      counts.set(key, count);
      print("info", `${key}: ${count}`);
    },
    countReset(label: unknown = "default") {
      counts.delete(String(label));
    },
    time(label: unknown = "default") {
      begunHere().timers.set(String(label), now());
    },
    timeLog(label: unknown = "default", ...rest: unknown[]) {
      elapsed(String(label), rest);
    },
    timeEnd(label: unknown = "default") {
      elapsed(String(label), []);
      begunHere().timers.delete(String(label));
    },
    group,
    groupCollapsed: group,
    groupEnd() {
      const here = begunHere();
      here.indent = here.indent.slice(2);
    },
  });
}
