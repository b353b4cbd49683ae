// Finds the handler in a module, calls it, and turns every outcome into an answer.

import { Context, currentInvocation, type FunctionInfo } from "./context.ts";
import { HEADER_DEADLINE, HEADER_ERROR, HEADER_INVOCATION_ID, HEADER_PENDING, type ErrorSort, type HandlerKind } from "./protocol.ts";
import { watchAnswer } from "./stream.ts";
import { errorJson, errorParts } from "./text.ts";

// Captured before any function runs: a polyfill that replaces the globals must not confuse the shim.
const NativeResponse = Response;
const NativePromise = Promise;
const { peek } = Bun;

/** Function that Bun calls for each request. */
export type Serve = (request: Request) => Response | Promise<Response>;
export type Handler = (request: Request, context: Context) => unknown;

const isFunction = (value: unknown): value is (...args: any[]) => any => typeof value === "function";
const toSource = Function.prototype.toString;

/**
 * Whether a value is a class, which cannot be called without `new`; only its source tells it from a function. A method may have the name
 * `class`. A class that was compiled to a function can be called, and throws its own error.
 */
const isClass = (value: unknown): boolean => isFunction(value) && /^class(\s+[^\s(]|\s*\{)/.test(toSource.call(value));

/** Finds how a value is called as a handler: directly, or by its `fetch` method, which may be a static one of a class. */
function callable(value: any): { handler: Handler; isItself: boolean } | undefined {
  if (isFunction(value) && !isClass(value)) return { handler: value, isItself: true };
  if (isFunction(value?.fetch)) return { handler: value.fetch.bind(value), isItself: false };
  return undefined;
}

/**
 * Finds the handler called `name` in a module; undefined if there is none.
 *
 * `default` is the default export, or its `fetch` method, which may be a static one of a class. `handler` also accepts an export of that name
 * if there is no default one: functions without a configured export are registered this way. CommonJS shows its `module.exports` as the
 * default export, and a transpiled ES module in CommonJS keeps its own default export one or two levels further down.
 */
export function findHandler(module: any, name: string): { handler: Handler; kind: HandlerKind } | undefined {
  const exported = module.default;
  const levels = [exported, exported?.default, exported?.default?.default];
  if (name === "default" || name === "handler") {
    for (const [depth, value] of levels.entries()) {
      const found = callable(value);
      if (found) return { handler: found.handler, kind: depth > 0 ? "commonjs" : found.isItself ? "default" : "fetch" };
    }
    if (name === "default") return undefined;
  }
  for (const [depth, owner] of [module, ...levels].entries()) {
    const found = callable(owner?.[name]);
    if (found) return { handler: found.handler, kind: depth === 0 ? "named" : "commonjs" };
  }
  return undefined;
}

/** Whether the export of that name is a class without a static `fetch`, which cannot be a handler. */
export function isPlainClass(module: any, name: string): boolean {
  const isDefault = name === "default" || name === "handler";
  return isClass(module[name]) || (isDefault && isClass(module.default));
}

/** Builds the answer that the daemon turns into HANDLER_ERROR. */
function failure(sort: ErrorSort, body: string): Response {
  return new NativeResponse(body, { status: 500, headers: { [HEADER_ERROR]: sort, "content-type": "application/json" } });
}

/** Builds the answer for a thrown value. Also Bun's own hook, for a Response it cannot send, such as one whose body was read. */
export function thrown(error: unknown): Response {
  return failure("throw", errorJson(errorParts(error)));
}

function notAResponse(value: unknown): Response {
  const message = `the handler returned ${describe(value)}; return a Response, for example Response.json(value)`;
  return failure("not_a_response", errorJson({ name: "TypeError", message, stack: null }));
}

/** Describes a value in words, without running any of its code if possible. */
function describe(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (Array.isArray(value)) return "an array";
  if (typeof value !== "object") return `a ${typeof value}`;
  try {
    const prototype = Object.getPrototypeOf(value);
    if (prototype === null || prototype === Object.prototype) return "a plain object";
    const name = prototype.constructor?.name;
    if (typeof name === "string" && name !== "") return `an instance of ${name === "Response" ? "another Response class than Bun's" : name}`;
  } catch {}
  return "an object";
}

/** Builds the function that Bun calls for each request once the worker has its function. */
export function serveWith(handler: Handler, info: FunctionInfo): Serve {
  return function invoke(request) {
    const headers = request.headers;
    const id = headers.get(HEADER_INVOCATION_ID) ?? "";
    if (Context.isLate(id)) return new NativeResponse(null, { status: 499 });
    const context = new Context(id, headers.get(HEADER_DEADLINE), request, info);
    headers.delete(HEADER_DEADLINE);
    let result: unknown;
    try {
      result = currentInvocation.run(context, handler, request, context);
    } catch (error) {
      return finish(context, Context.returned(context), thrown(error));
    }
    if (result instanceof NativeResponse) return finish(context, Context.returned(context), result);
    // An async handler that awaited nothing has finished already, so no turn of the event loop is needed.
    if (result instanceof NativePromise && peek.status(result) === "fulfilled") result = peek(result);
    if (result instanceof NativeResponse) return finish(context, Context.returned(context), result);
    if (isFunction((result as any)?.then)) {
      Context.began(context);
      return later(context, result as PromiseLike<unknown>);
    }
    return finish(context, Context.returned(context), notAResponse(result));
  };
}

async function later(context: Context, promise: PromiseLike<unknown>): Promise<Response> {
  let answer: Response;
  try {
    const result = await promise;
    answer = result instanceof NativeResponse ? result : notAResponse(result);
  } catch (error) {
    answer = thrown(error);
  }
  return finish(context, Context.returnedLate(context), answer);
}

/** Returns the function's answer, unchanged unless it must announce pending promises. */
function finish(context: Context, pending: boolean, answer: Response): Response {
  watchAnswer(answer, context);
  if (!pending) return answer;
  // An answer without a body is copied: the mark must not stay on the function's own object, and Bun does not send
  // headers that are set on it after its first use.
  if (answer.body === null) answer = new NativeResponse(null, answer);
  answer.headers.set(HEADER_PENDING, "1");
  return answer;
}
