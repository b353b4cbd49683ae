// Reports errors that a function throws while its answer streams. Bun reads the body itself, and on an error closes the
// connection without a reason.
//
// No body is read or copied here. Instead, the functions of a stream are wrapped, so that other answers cost nothing.
// Bodies that Bun makes itself, such as those of `fetch` and files, are left alone.

import { Context } from "./context.ts";

const NativeResponse = Response;
const NativeReadableStream = ReadableStream;
const NativeTransformStream = TransformStream;
const { construct, apply } = Reflect;
const { asyncIterator } = Symbol;
const isFunction = (value: unknown): value is (...args: any[]) => any => typeof value === "function";

/** One source of bytes, of any kind. */
class Watch {
  #failed = false;
  #error: unknown;
  /** The invocation that it answers. */
  #context: Context | undefined;
  /** The stream that receives its bytes, and with them its failure. */
  #next: Watch | undefined;

  /** Records a failure. The first one counts, as with a stream. */
  readonly fail = (error: unknown): void => {
    if (this.#failed) return;
    this.#failed = true;
    this.#error = error;
    if (this.#context) Context.failed(this.#context, error);
    this.#next?.fail(error);
  };

  flowsInto(next: Watch): void {
    this.#next = next;
    if (this.#failed) next.fail(this.#error);
  }

  /** Makes it the body of an answer. */
  answers(context: Context): void {
    this.#context = context;
    if (this.#failed) Context.failed(context, this.#error);
  }
}

const ofStream = new WeakMap<object, Watch>();
const ofResponse = new WeakMap<object, Watch>();

function watchOf(stream: object): Watch {
  let found = ofStream.get(stream);
  if (!found) ofStream.set(stream, (found = new Watch()));
  return found;
}

/** Calls a function of the user's and records its failure, now or later. */
function heard(watch: Watch, call: (...args: any[]) => any, self: unknown, args: any[]): unknown {
  let result: any;
  try {
    result = apply(call, self, args);
  } catch (error) {
    watch.fail(error);
    throw error;
  }
  if (result instanceof Promise) result.then(undefined, watch.fail);
  return result;
}

/** Wraps the functions of a source or transformer; their `this` remains the original object. */
function heardAll(watch: Watch, source: any, names: string[]): any {
  if (typeof source !== "object" || source === null) return source;
  const stand: any = Object.create(source);
  for (const name of names) {
    const call = source[name];
    if (!isFunction(call)) continue;
    stand[name] = (...args: any[]) => {
      // The controller: the first argument of `start`, `pull` and `flush`, the second of `transform`.
      for (const controller of args) if (isFunction(controller?.error)) hearController(watch, controller);
      return heard(watch, call, source, args);
    };
  }
  return stand;
}

const controllers = new WeakSet<object>();

function hearController(watch: Watch, controller: any): void {
  if (controllers.has(controller)) return;
  controllers.add(controller);
  const { error } = controller;
  try {
    Object.defineProperty(controller, "error", {
      configurable: true,
      writable: true,
      value: (reason: unknown) => {
        watch.fail(reason);
        return error.call(controller, reason);
      },
    });
  } catch {}
}

/** Replaces a global class by one that can be called and extended like it, with its statics. */
function replace(name: "Response" | "ReadableStream" | "TransformStream", native: any, made: (args: any[], target: any) => object): void {
  function stand(this: unknown, ...args: any[]): object {
    if (new.target === undefined) return native(...args);
    return made(args, new.target === stand ? native : new.target);
  }
  Object.setPrototypeOf(stand, native);
  Object.defineProperty(stand, "name", { value: name, configurable: true });
  Object.defineProperty(stand, "length", { value: native.length, configurable: true });
  Object.defineProperty(stand, "prototype", { value: native.prototype, writable: false });
  Object.defineProperty(native.prototype, "constructor", { value: stand, configurable: true, writable: true });
  Object.defineProperty(globalThis, name, { value: stand, configurable: true, writable: true });
}

/** Wraps a body that is iterated over; undefined if it is not iterable. */
function iterated(watch: Watch, body: any): object | undefined {
  // Bun itself calls an async generator function.
  const begin = isFunction(body) ? (body.constructor?.name === "AsyncGeneratorFunction" ? body : undefined) : body[asyncIterator];
  if (!isFunction(begin)) return undefined;
  return {
    [asyncIterator]() {
      const iterator = heard(watch, begin, body, []) as any;
      const stand = Object.create(iterator);
      for (const name of ["next", "return", "throw"]) {
        const call = iterator[name];
        if (isFunction(call)) stand[name] = (...args: any[]) => heard(watch, call, iterator, args);
      }
      return stand;
    },
  };
}

/** Replaces the classes that bodies are made with. */
export function watchBodies(): void {
  replace("Response", NativeResponse, (args, target) => {
    const body = args[0];
    // Most bodies are texts.
    if ((typeof body !== "object" && typeof body !== "function") || body === null) return construct(NativeResponse, args, target);
    let watch = ofStream.get(body);
    if (!watch && !(body instanceof NativeReadableStream)) {
      const fresh = new Watch();
      const stand = iterated(fresh, body);
      if (stand) (watch = fresh), (args[0] = stand);
    }
    const response = construct(NativeResponse, args, target);
    if (watch) ofResponse.set(response, watch);
    return response;
  });
  replace("ReadableStream", NativeReadableStream, (args, target) => {
    const watch = new Watch();
    args[0] = heardAll(watch, args[0], ["start", "pull", "cancel"]);
    const stream = construct(NativeReadableStream, args, target);
    ofStream.set(stream, watch);
    return stream;
  });
  replace("TransformStream", NativeTransformStream, (args, target) => {
    const watch = new Watch();
    args[0] = heardAll(watch, args[0], ["start", "transform", "flush", "cancel"]);
    const stream = construct(NativeTransformStream, args, target);
    ofStream.set(stream.readable, watch);
    return stream;
  });
  const { pipeThrough } = NativeReadableStream.prototype;
  Object.defineProperty(NativeReadableStream.prototype, "pipeThrough", {
    configurable: true,
    writable: true,
    value: function (this: ReadableStream, ...args: any[]) {
      const result = apply(pipeThrough, this, args);
      ofStream.get(this)?.flowsInto(watchOf(result));
      return result;
    },
  });
}

/** Reports to the invocation everything that the body of this answer throws. */
export function watchAnswer(answer: Response, context: Context): void {
  ofResponse.get(answer)?.answers(context);
}
