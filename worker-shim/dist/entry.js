// @bun
// src/protocol.ts
var ASSIGN_METHOD = "PUT";
var ASSIGN_PATH = "/assign";
var REHEARSAL_PATH = "/rehearsal";
var HEADER_INVOCATION_ID = "x-invocation-id";
var HEADER_DEADLINE = "x-levain-deadline";
var HEADER_ERROR = "x-levain-error";
var HEADER_PENDING = "x-levain-pending";
var LOG_LINE_BYTES_DEFAULT = 16384;
var LOG_LINE_BYTES_FLOOR = 256;
var ERROR_TEXT_BYTES_MAX = 16384;
var REQUEST_BODY_BYTES_MAX = 2 ** 40;
var COMPILED_FILE = "levain_compiled.js";
var BUNDLE_FILE = "bundle.js";
var BUNDLE_FOLDER = "/bundle";

// src/text.ts
var { inspect } = Bun;
var NativeError = Error;
var NativeString = String;
var byteLength = Buffer.byteLength;
var stringify = JSON.stringify;
var encoder = new TextEncoder;
var encodeInto = encoder.encodeInto.bind(encoder);
var decoder = new TextDecoder;
var decode = decoder.decode.bind(decoder);
var shimFile = import.meta.path;
var quiet = { colors: false, depth: 2 };
function show(value, options = quiet) {
  try {
    return inspect(value, options);
  } catch {
    return "[a value that cannot be shown]";
  }
}
function quote(text) {
  return stringify(text.toWellFormed());
}
function cut(text, bytes) {
  if (text.length * 3 <= bytes)
    return text;
  const length = byteLength(text);
  if (length <= bytes)
    return text;
  const marker = `\u2026 [cut, ${length} bytes]`;
  const kept = new Uint8Array(bytes - byteLength(marker));
  const { written } = encodeInto(text.slice(0, bytes), kept);
  return decode(kept.subarray(0, written)) + marker;
}
function read(value, key) {
  try {
    const found = value[key];
    return typeof found === "string" ? found : undefined;
  } catch {
    return;
  }
}
function isErrorLike(value) {
  try {
    return value instanceof NativeError || typeof value === "object" && value !== null && read(value, "message") !== undefined;
  } catch {
    return false;
  }
}
function stackOf(error, depth = 0) {
  let stack = read(error, "stack");
  if (stack === undefined)
    return;
  if (stack.includes(shimFile)) {
    let kept = "";
    for (const line of stack.split(`
`))
      if (!line.includes(shimFile))
        kept += (kept && `
`) + line;
    stack = kept;
  }
  let cause;
  try {
    cause = error.cause;
  } catch {}
  if (cause !== undefined && depth < 4)
    stack += `
caused by: ${stackOf(cause, depth + 1) ?? brief(cause)}`;
  return stack;
}
function brief(value) {
  if (typeof value === "string")
    return value;
  return (isErrorLike(value) ? read(value, "message") : undefined) ?? show(value);
}
function errorParts(value) {
  if (!isErrorLike(value)) {
    const message = typeof value === "string" ? value : `${show(value)} was thrown; throw an Error to get a stack`;
    return { name: "ThrownValue", message: cut(message, ERROR_TEXT_BYTES_MAX), stack: null };
  }
  const stack = stackOf(value);
  return {
    name: cut(read(value, "name") || "Error", 256),
    message: cut(read(value, "message") ?? "", ERROR_TEXT_BYTES_MAX),
    stack: stack ? cut(stack, ERROR_TEXT_BYTES_MAX) : null
  };
}
function errorJson({ name, message, stack }) {
  return `{"name":${quote(name)},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}}`;
}
function showError(error) {
  const stack = stackOf(error);
  if (!stack)
    return show(error);
  const extra = {};
  let any = false;
  try {
    for (const key of Object.keys(error)) {
      if (hiddenErrorKeys.has(key))
        continue;
      extra[key] = error[key];
      any = true;
    }
  } catch {}
  return any ? `${stack} ${show(extra)}` : stack;
}
var hiddenErrorKeys = new Set(["name", "message", "stack", "cause", "line", "column", "sourceURL", "originalLine", "originalColumn"]);
function showArgument(value) {
  if (typeof value === "string")
    return value;
  let isError = false;
  try {
    isError = value instanceof NativeError;
  } catch {}
  return isError ? showError(value) : show(value);
}
function format(args) {
  const first = args[0];
  if (args.length === 1)
    return showArgument(first);
  let text = "";
  let next = 0;
  if (typeof first === "string") {
    next = 1;
    text = first.includes("%") ? first.replace(/%[sdifjoOc%]/g, (placeholder) => {
      if (placeholder === "%%")
        return "%";
      if (next >= args.length)
        return placeholder;
      return fill(placeholder, args[next++]);
    }) : first;
  }
  for (let i = next;i < args.length; i++)
    text += (i === 0 ? "" : " ") + showArgument(args[i]);
  return text;
}
function fill(placeholder, value) {
  try {
    switch (placeholder) {
      case "%s":
        return typeof value === "bigint" ? `${value}n` : typeof value === "object" && value !== null ? showArgument(value) : NativeString(value);
      case "%d":
        return typeof value === "bigint" ? `${value}n` : NativeString(typeof value === "symbol" ? NaN : Number(value));
      case "%i":
        return typeof value === "bigint" ? `${value}n` : NativeString(parseInt(value));
      case "%f":
        return NativeString(parseFloat(value));
      case "%j":
        return stringify(value) ?? "undefined";
      case "%c":
        return "";
      case "%o":
        return show(value, { colors: false, depth: 4 });
      default:
        return show(value);
    }
  } catch {
    return show(value);
  }
}

// src/control.ts
var STALL_MS_MAX = 50;
var { sleepSync } = Bun;
var encoder2 = new TextEncoder;
var encode = encoder2.encode.bind(encoder2);
var decoder2 = new TextDecoder;
var decode2 = (bytes) => decoder2.decode(bytes);
var parse = JSON.parse;
var kill = process.kill.bind(process);
var exit = (process.reallyExit ?? process.exit).bind(process);
var pid = process.pid;
var write;
var backlog = [];
var stalled = false;
var dropped = 0;
function leave() {
  try {
    kill(pid, "SIGKILL");
  } catch {}
  return exit(1);
}
var partial = "";
function read2(bytes, onDropped) {
  const lines = (partial + decode2(bytes)).split(`
`);
  partial = lines.pop();
  for (const line of lines) {
    try {
      const message = parse(line);
      if (message.type === "dropped")
        onDropped(message.invocation);
      else if (message.type === "ping")
        sendPong(message.number);
    } catch {}
  }
}
async function openControl(onDropped) {
  const socket = await Bun.connect({
    fd: 0,
    socket: { data: (_, bytes) => read2(bytes, onDropped), end: leave, close: leave, error: leave, drain: flush }
  });
  write = socket.write.bind(socket);
}
function flush() {
  while (backlog.length > 0) {
    const bytes = backlog[0];
    const written = write(bytes);
    if (written < 0)
      leave();
    if (written < bytes.length) {
      backlog[0] = bytes.subarray(written);
      return false;
    }
    backlog.shift();
  }
  stalled = false;
  return true;
}
function flushPatiently() {
  if (flush())
    return true;
  if (stalled)
    return false;
  for (let waited = 0;waited < STALL_MS_MAX; waited++) {
    sleepSync(1);
    if (flush())
      return true;
  }
  stalled = true;
  return false;
}
function send(line, droppable) {
  if (backlog.length > 0 && !flushPatiently() && droppable) {
    dropped++;
    return false;
  }
  backlog.push(encode(line));
  if (!flush())
    flushPatiently();
  return true;
}
function sendDroppable(head) {
  const count = dropped;
  if (send(count === 0 ? `${head}}
` : `${head},"dropped":${count}}
`, true))
    dropped -= count;
}
var quoteId = (invocation) => invocation === null ? "null" : quote(invocation);
function sendReady() {
  send(`{"type":"ready","bun":${quote(Bun.version)}}
`, false);
}
function sendLog(level, invocation, message) {
  sendDroppable(`{"type":"log","level":"${level}","invocation":${quoteId(invocation)},"message":${quote(message)}`);
}
function sendRejection(invocation, guessed, message, stack) {
  sendDroppable(`{"type":"rejection","invocation":${quoteId(invocation)}${guessed ? ',"guessed":true' : ""},"message":${quote(message)},"stack":${stack === null ? "null" : quote(stack)}`);
}
function sendPong(number) {
  send(`{"type":"pong","number":${+number}}
`, false);
}
function sendSettled(invocation) {
  send(`{"type":"settled","invocation":${quote(invocation)}}
`, false);
}

// src/context.ts
var now = performance.now.bind(performance);
var timeOrigin = performance.timeOrigin;
var NativePromise = Promise;
var currentInvocation;
function openContext() {
  const { AsyncLocalStorage } = process.getBuiltinModule("node:async_hooks");
  currentInvocation = new AsyncLocalStorage;
}
var running = new Set;
var late = new Set;
var LATE_MAX = 64;
var guess = null;
function reportUnhandled(error) {
  const context = currentInvocation.getStore();
  const id = context ? Context.id(context) : guess;
  report(id, !context && id !== null, error);
}
function report(id, guessed, error) {
  const { name, message, stack } = errorParts(error);
  sendRejection(id, guessed, message === "" ? name : message, stack);
}

class Context {
  #id;
  #info;
  #request;
  #endsAt;
  #pending = 0;
  #returned = false;
  #awaited = false;
  constructor(id, leftMs, request, info) {
    this.#id = id;
    this.#info = info;
    this.#request = request;
    this.#endsAt = leftMs === null ? Infinity : now() + +leftMs;
    guess = running.size === 0 && id !== "" ? id : null;
  }
  get invocationId() {
    return this.#id;
  }
  get functionName() {
    return this.#info.name;
  }
  get version() {
    return this.#info.version;
  }
  get environment() {
    return this.#info.environment;
  }
  get deadline() {
    return Math.round(timeOrigin + this.#endsAt);
  }
  get remainingMs() {
    return () => Math.max(0, Math.round(this.#endsAt - now()));
  }
  get signal() {
    return this.#request.signal;
  }
  get env() {
    return process.env;
  }
  get waitUntil() {
    return (promise) => this.#waitUntil(promise);
  }
  #waitUntil(promise) {
    this.#pending++;
    running.add(this);
    NativePromise.resolve(promise).catch((error) => report(this.#id, false, error)).then(() => {
      this.#pending--;
      this.#settleIfDone();
    });
  }
  #settleIfDone() {
    if (!this.#returned || this.#pending > 0)
      return;
    running.delete(this);
    if (!this.#awaited)
      return;
    this.#awaited = false;
    sendSettled(this.#id);
  }
  static id(context) {
    return context.#id;
  }
  static failed(context, error) {
    if (!context.#request.signal.aborted)
      report(context.#id, false, error);
  }
  static began(context) {
    running.add(context);
  }
  static returned(context) {
    context.#returned = true;
    const pending = context.#pending > 0;
    if (pending)
      context.#awaited = true;
    return pending;
  }
  static returnedLate(context) {
    const pending = Context.returned(context);
    if (context.#request.signal.aborted)
      context.#awaited = true;
    context.#settleIfDone();
    return pending;
  }
  static dropped(id) {
    for (const context of running)
      if (context.#id === id)
        return void (context.#awaited = true);
    if (late.size === LATE_MAX) {
      for (const oldest of late)
        if (late.delete(oldest))
          break;
    }
    late.add(id);
    sendSettled(id);
  }
  static isLate(id) {
    return late.size > 0 && late.delete(id);
  }
}

// src/abort.ts
var standIns = new WeakMap;
var originals = new WeakMap;
function tie(signal, listener) {
  const context = currentInvocation.getStore();
  const isListener = typeof listener === "function" || typeof listener === "object" && listener !== null;
  if (!context || !isListener)
    return listener;
  let ofSignal = standIns.get(signal);
  if (!ofSignal)
    standIns.set(signal, ofSignal = new WeakMap);
  let found = ofSignal.get(listener);
  if (!found) {
    const call = (event) => typeof listener === "function" ? listener.call(signal, event) : listener.handleEvent?.(event);
    found = (event) => currentInvocation.run(context, call, event);
    ofSignal.set(listener, found);
    originals.set(found, listener);
  }
  return found;
}
function keepContextOfAbortListeners() {
  const prototype = AbortSignal.prototype;
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  const onabort = Object.getOwnPropertyDescriptor(prototype, "onabort");
  const define = (name, property) => Object.defineProperty(prototype, name, { configurable: true, enumerable: true, ...property });
  define("addEventListener", {
    writable: true,
    value: function(type, listener, options) {
      return addEventListener.call(this, type, tie(this, listener), options);
    }
  });
  define("removeEventListener", {
    writable: true,
    value: function(type, listener, options) {
      const standIn = standIns.get(this)?.get(listener);
      if (standIn)
        removeEventListener.call(this, type, standIn, options);
      return removeEventListener.call(this, type, listener, options);
    }
  });
  define("onabort", {
    get() {
      const listener = onabort.get.call(this);
      return originals.get(listener) ?? listener;
    },
    set(listener) {
      onabort.set.call(this, tie(this, listener));
    }
  });
}

// src/console.ts
var { inspect: inspect2 } = Bun;
var now2 = performance.now.bind(performance);
var bytesMax = LOG_LINE_BYTES_DEFAULT;
var begun = new WeakMap;
var begunByWorker = { indent: "", timers: new Map };
function begunHere() {
  const context = currentInvocation.getStore();
  if (!context)
    return begunByWorker;
  let found = begun.get(context);
  if (!found)
    begun.set(context, found = { indent: "", timers: new Map });
  return found;
}
function setLogLineBytesMax(bytes) {
  if (typeof bytes === "number" && bytes >= 0)
    bytesMax = Math.max(LOG_LINE_BYTES_FLOOR, Math.floor(bytes));
}
function print(level, text) {
  const context = currentInvocation.getStore();
  const indent = (context ? begun.get(context)?.indent : begunByWorker.indent) ?? "";
  if (indent !== "")
    text = indent + text.replaceAll(`
`, `
${indent}`);
  sendLog(level, context ? Context.id(context) : null, cut(text, bytesMax));
}
var at = (level) => (...args) => print(level, format(args));
function captureConsole() {
  const counts = new Map;
  const elapsed = (label, rest) => {
    const since = begunHere().timers.get(label) ?? begunByWorker.timers.get(label);
    if (since === undefined)
      return print("warn", `Timer '${label}' does not exist`);
    const text = `${label}: ${(now2() - since).toFixed(3)}ms`;
    print("info", rest.length === 0 ? text : `${text} ${format(rest)}`);
  };
  const group = (...args) => {
    if (args.length > 0)
      print("info", format(args));
    begunHere().indent += "  ";
  };
  Object.assign(console, {
    log: at("info"),
    info: at("info"),
    debug: at("debug"),
    warn: at("warn"),
    error: at("error"),
    dirxml: at("info"),
    trace(...args) {
      const frames = stackOf(new Error("trace"))?.split(`
`).slice(1).join(`
`) ?? "";
      print("debug", `Trace${args.length > 0 ? `: ${format(args)}` : ""}
${frames}`);
    },
    assert(condition, ...args) {
      if (!condition)
        print("error", args.length > 0 ? `Assertion failed: ${format(args)}` : "Assertion failed");
    },
    dir(value, options) {
      print("info", show(value, { depth: 2, ...options, colors: false }));
    },
    table(data, columns) {
      try {
        print("info", typeof data === "object" && data !== null ? inspect2.table(data, columns, { colors: false }).trimEnd() : format([data]));
      } catch {
        print("info", format([data]));
      }
    },
    count(label = "default") {
      const key = String(label);
      const count = (counts.get(key) ?? 0) + 1;
      counts.set(key, count);
      print("info", `${key}: ${count}`);
    },
    countReset(label = "default") {
      counts.delete(String(label));
    },
    time(label = "default") {
      begunHere().timers.set(String(label), now2());
    },
    timeLog(label = "default", ...rest) {
      elapsed(String(label), rest);
    },
    timeEnd(label = "default") {
      elapsed(String(label), []);
      begunHere().timers.delete(String(label));
    },
    group,
    groupCollapsed: group,
    groupEnd() {
      const here = begunHere();
      here.indent = here.indent.slice(2);
    }
  });
}

// src/stream.ts
var NativeResponse = Response;
var NativeReadableStream = ReadableStream;
var NativeTransformStream = TransformStream;
var { construct, apply } = Reflect;
var { asyncIterator } = Symbol;
var isFunction = (value) => typeof value === "function";

class Watch {
  #failed = false;
  #error;
  #context;
  #next;
  fail = (error) => {
    if (this.#failed)
      return;
    this.#failed = true;
    this.#error = error;
    if (this.#context)
      Context.failed(this.#context, error);
    this.#next?.fail(error);
  };
  flowsInto(next) {
    this.#next = next;
    if (this.#failed)
      next.fail(this.#error);
  }
  answers(context) {
    this.#context = context;
    if (this.#failed)
      Context.failed(context, this.#error);
  }
}
var ofStream = new WeakMap;
var ofResponse = new WeakMap;
function watchOf(stream) {
  let found = ofStream.get(stream);
  if (!found)
    ofStream.set(stream, found = new Watch);
  return found;
}
function heard(watch, call, self, args) {
  let result;
  try {
    result = apply(call, self, args);
  } catch (error) {
    watch.fail(error);
    throw error;
  }
  if (result instanceof Promise)
    result.then(undefined, watch.fail);
  return result;
}
function heardAll(watch, source, names) {
  if (typeof source !== "object" || source === null)
    return source;
  const stand = Object.create(source);
  for (const name of names) {
    const call = source[name];
    if (!isFunction(call))
      continue;
    stand[name] = (...args) => {
      for (const controller of args)
        if (isFunction(controller?.error))
          hearController(watch, controller);
      return heard(watch, call, source, args);
    };
  }
  return stand;
}
var controllers = new WeakSet;
function hearController(watch, controller) {
  if (controllers.has(controller))
    return;
  controllers.add(controller);
  const { error } = controller;
  try {
    Object.defineProperty(controller, "error", {
      configurable: true,
      writable: true,
      value: (reason) => {
        watch.fail(reason);
        return error.call(controller, reason);
      }
    });
  } catch {}
}
function replace(name, native, made) {
  function stand(...args) {
    if (new.target === undefined)
      return native(...args);
    return made(args, new.target === stand ? native : new.target);
  }
  Object.setPrototypeOf(stand, native);
  Object.defineProperty(stand, "name", { value: name, configurable: true });
  Object.defineProperty(stand, "length", { value: native.length, configurable: true });
  Object.defineProperty(stand, "prototype", { value: native.prototype, writable: false });
  Object.defineProperty(native.prototype, "constructor", { value: stand, configurable: true, writable: true });
  Object.defineProperty(globalThis, name, { value: stand, configurable: true, writable: true });
}
function iterated(watch, body) {
  const begin = isFunction(body) ? body.constructor?.name === "AsyncGeneratorFunction" ? body : undefined : body[asyncIterator];
  if (!isFunction(begin))
    return;
  return {
    [asyncIterator]() {
      const iterator = heard(watch, begin, body, []);
      const stand = Object.create(iterator);
      for (const name of ["next", "return", "throw"]) {
        const call = iterator[name];
        if (isFunction(call))
          stand[name] = (...args) => heard(watch, call, iterator, args);
      }
      return stand;
    }
  };
}
function watchBodies() {
  replace("Response", NativeResponse, (args, target) => {
    const body = args[0];
    if (typeof body !== "object" && typeof body !== "function" || body === null)
      return construct(NativeResponse, args, target);
    let watch = ofStream.get(body);
    if (!watch && !(body instanceof NativeReadableStream)) {
      const fresh = new Watch;
      const stand = iterated(fresh, body);
      if (stand)
        watch = fresh, args[0] = stand;
    }
    const response = construct(NativeResponse, args, target);
    if (watch)
      ofResponse.set(response, watch);
    return response;
  });
  replace("ReadableStream", NativeReadableStream, (args, target) => {
    const watch = new Watch;
    args[0] = heardAll(watch, args[0], ["start", "pull", "cancel"]);
    const stream = construct(NativeReadableStream, args, target);
    ofStream.set(stream, watch);
    return stream;
  });
  replace("TransformStream", NativeTransformStream, (args, target) => {
    const watch = new Watch;
    args[0] = heardAll(watch, args[0], ["start", "transform", "flush", "cancel"]);
    const stream = construct(NativeTransformStream, args, target);
    ofStream.set(stream.readable, watch);
    return stream;
  });
  const { pipeThrough } = NativeReadableStream.prototype;
  Object.defineProperty(NativeReadableStream.prototype, "pipeThrough", {
    configurable: true,
    writable: true,
    value: function(...args) {
      const result = apply(pipeThrough, this, args);
      ofStream.get(this)?.flowsInto(watchOf(result));
      return result;
    }
  });
}
function watchAnswer(answer, context) {
  ofResponse.get(answer)?.answers(context);
}

// src/handler.ts
var NativeResponse2 = Response;
var NativePromise2 = Promise;
var { peek } = Bun;
var isFunction2 = (value) => typeof value === "function";
var toSource = Function.prototype.toString;
var isClass = (value) => isFunction2(value) && /^class(\s+[^\s(]|\s*\{)/.test(toSource.call(value));
function callable(value) {
  if (isFunction2(value) && !isClass(value))
    return { handler: value, isItself: true };
  if (isFunction2(value?.fetch))
    return { handler: value.fetch.bind(value), isItself: false };
  return;
}
function findHandler(module, name) {
  const exported = module.default;
  const levels = [exported, exported?.default, exported?.default?.default];
  if (name === "default" || name === "handler") {
    for (const [depth, value] of levels.entries()) {
      const found = callable(value);
      if (found)
        return { handler: found.handler, kind: depth > 0 ? "commonjs" : found.isItself ? "default" : "fetch" };
    }
    if (name === "default")
      return;
  }
  for (const [depth, owner] of [module, ...levels].entries()) {
    const found = callable(owner?.[name]);
    if (found)
      return { handler: found.handler, kind: depth === 0 ? "named" : "commonjs" };
  }
  return;
}
function isPlainClass(module, name) {
  const isDefault = name === "default" || name === "handler";
  return isClass(module[name]) || isDefault && isClass(module.default);
}
function failure(sort, body) {
  return new NativeResponse2(body, { status: 500, headers: { [HEADER_ERROR]: sort, "content-type": "application/json" } });
}
function thrown(error) {
  return failure("throw", errorJson(errorParts(error)));
}
function notAResponse(value) {
  const message = `the handler returned ${describe(value)}; return a Response, for example Response.json(value)`;
  return failure("not_a_response", errorJson({ name: "TypeError", message, stack: null }));
}
function describe(value) {
  if (value === undefined || value === null)
    return String(value);
  if (Array.isArray(value))
    return "an array";
  if (typeof value !== "object")
    return `a ${typeof value}`;
  try {
    const prototype = Object.getPrototypeOf(value);
    if (prototype === null || prototype === Object.prototype)
      return "a plain object";
    const name = prototype.constructor?.name;
    if (typeof name === "string" && name !== "")
      return `an instance of ${name === "Response" ? "another Response class than Bun's" : name}`;
  } catch {}
  return "an object";
}
function serveWith(handler, info) {
  return function invoke(request) {
    const headers = request.headers;
    const id = headers.get(HEADER_INVOCATION_ID) ?? "";
    if (Context.isLate(id))
      return new NativeResponse2(null, { status: 499 });
    const context = new Context(id, headers.get(HEADER_DEADLINE), request, info);
    headers.delete(HEADER_DEADLINE);
    let result;
    try {
      result = currentInvocation.run(context, handler, request, context);
    } catch (error) {
      return finish(context, Context.returned(context), thrown(error));
    }
    if (result instanceof NativeResponse2)
      return finish(context, Context.returned(context), result);
    if (result instanceof NativePromise2 && peek.status(result) === "fulfilled")
      result = peek(result);
    if (result instanceof NativeResponse2)
      return finish(context, Context.returned(context), result);
    if (isFunction2(result?.then)) {
      Context.began(context);
      return later(context, result);
    }
    return finish(context, Context.returned(context), notAResponse(result));
  };
}
async function later(context, promise) {
  let answer;
  try {
    const result = await promise;
    answer = result instanceof NativeResponse2 ? result : notAResponse(result);
  } catch (error) {
    answer = thrown(error);
  }
  return finish(context, Context.returnedLate(context), answer);
}
function finish(context, pending, answer) {
  watchAnswer(answer, context);
  if (!pending)
    return answer;
  if (answer.body === null)
    answer = new NativeResponse2(null, answer);
  answer.headers.set(HEADER_PENDING, "1");
  return answer;
}

// src/load-error.ts
var LINE_TEXT_BYTES_MAX = 512;
function loadError(error, entry) {
  try {
    const first = error?.errors?.[0] ?? error;
    const more = error?.errors?.length > 1 ? ` (and ${error.errors.length - 1} more)` : "";
    if (first?.code === "ERR_MODULE_NOT_FOUND" || first?.code === "MODULE_NOT_FOUND")
      return missing(first, entry, more);
    if (first?.position || first?.name === "BuildMessage")
      return syntax(first, entry, more);
    if (error instanceof SyntaxError && error.stack === undefined)
      return engineSyntax(error);
  } catch {}
  return topLevelThrow(error);
}
function missing(message, entry, more) {
  if (message.specifier === entry) {
    return { kind: "not_found", name: "ModuleNotFoundError", message: "the entry file of the bundle does not exist", file: entry };
  }
  const found = { kind: "missing_module", name: "ModuleNotFoundError", message: cut(message.message, ERROR_TEXT_BYTES_MAX) + more };
  if (message.referrer)
    found.file = message.referrer;
  if (message.position)
    place(found, message.position);
  return found;
}
function syntax(message, entry, more) {
  const found = { kind: "syntax", name: "SyntaxError", message: cut(message.message, ERROR_TEXT_BYTES_MAX) + more, file: entry };
  if (message.position)
    place(found, message.position);
  return found;
}
function engineSyntax(error) {
  const found = { kind: "syntax", name: "SyntaxError", message: cut(error.message, ERROR_TEXT_BYTES_MAX) };
  if (error.sourceURL)
    found.file = error.sourceURL;
  if (error.line)
    found.line = error.line;
  if (error.column)
    found.column = error.column;
  return found;
}
function topLevelThrow(error) {
  const { name, message, stack } = errorParts(error);
  const found = { kind: "throw", name, message };
  if (stack === null)
    return found;
  found.stack = stack;
  const frame = /^\s+at (?:.*\()?(\/.*?):(\d+):(\d+)\)?$/m.exec(stack);
  if (frame) {
    found.file = frame[1];
    found.line = Number(frame[2]);
    found.column = Number(frame[3]);
  }
  return found;
}
function place(found, position) {
  if (position.file)
    found.file = position.file;
  if (position.line)
    found.line = position.line;
  if (position.column)
    found.column = position.column;
  if (position.lineText)
    found.line_text = cut(position.lineText, LINE_TEXT_BYTES_MAX);
}

// src/entry.ts
var json = Response.json;
var socketPath = process.argv[2];
var assigned = false;
var serve = unassigned;
async function unassigned(request) {
  const { pathname } = new URL(request.url);
  if (assigned || request.method !== ASSIGN_METHOD || pathname !== ASSIGN_PATH && pathname !== REHEARSAL_PATH) {
    return new Response("this worker has no function", { status: 503 });
  }
  if (pathname === REHEARSAL_PATH)
    return rehearse(request);
  assigned = true;
  const order = await request.json();
  const loaded = await load(order);
  if ("error" in loaded)
    return json(loaded, { status: 422 });
  serve = loaded.serve;
  return json(loaded.answer);
}
async function load(order) {
  setLogLineBytesMax(order.log_line_bytes_max);
  if (order.variables)
    Object.assign(process.env, order.variables);
  process.argv = [process.execPath, order.entry];
  const started = performance.now();
  let module;
  try {
    module = await importModule(order);
  } catch (error) {
    return { error: loadError(error, order.entry) };
  }
  const import_ms = Math.round((performance.now() - started) * 1000) / 1000;
  const found = findHandler(module, order.handler);
  if (!found)
    return { error: noHandler(module, order) };
  const info = { name: order.function, version: order.version, environment: order.environment };
  return { serve: serveWith(found.handler, info), answer: { kind: found.kind, import_ms, bun: Bun.version } };
}
async function importModule({ entry, compiled }) {
  if (compiled !== undefined) {
    try {
      return await import(compiled);
    } catch (error) {
      if (error?.code !== "ERR_MODULE_NOT_FOUND" || error.specifier !== compiled)
        throw error;
    }
  }
  return import(entry);
}
function noHandler(module, { entry, handler }) {
  const exports = Object.keys(module);
  const wanted = handler === "default" || handler === "handler" ? "export a default function (req, ctx) => Response, or a default object with a fetch method" : `export a function named ${handler}, or an object of that name with a fetch method`;
  const has = isPlainClass(module, handler) ? "the export is a class without a static fetch method, and a class is not called without new" : exports.length === 0 ? "the module exports nothing" : `the module exports ${exports.join(", ")}`;
  return { kind: "no_handler", name: "Error", message: `no handler found: ${has}; ${wanted}`, file: entry, exports };
}
async function rehearse(request) {
  const loaded = await load(await request.json());
  if ("error" in loaded)
    return json(loaded, { status: 422 });
  const invocation = new Request("http://rehearsal/", { headers: { [HEADER_DEADLINE]: "1" } });
  await (await loaded.serve(invocation)).text();
  return json(loaded.answer);
}
process.on("unhandledRejection", reportUnhandled);
process.on("uncaughtException", reportUnhandled);
await openControl(Context.dropped);
Bun.serve({
  unix: socketPath,
  development: false,
  idleTimeout: 0,
  maxRequestBodySize: REQUEST_BODY_BYTES_MAX,
  error: thrown,
  fetch: (request) => serve(request)
});
sendReady();
openContext();
captureConsole();
keepContextOfAbortListeners();
watchBodies();
