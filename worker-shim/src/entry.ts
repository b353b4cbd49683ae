// The life of a worker: `bun --no-env-file --config=/dev/null --no-install entry.js <socket path>`, started in its own
// working directory. It runs as one file, `dist/entry.js` (`bun run build`): each file that Bun opens adds about 0.3 ms
// to a start.
//
//   start → `ready` on the control channel → [rehearsal] → PUT /assign (import, find the handler) → invocations → SIGKILL
//
// The daemon is the only client of the socket. A function can break nothing but this process.

import { keepContextOfAbortListeners } from "./abort.ts";
import { captureConsole, setLogLineBytesMax } from "./console.ts";
import { Context, openContext, reportUnhandled } from "./context.ts";
import { openControl, sendReady } from "./control.ts";
import { findHandler, isPlainClass, serveWith, thrown, type Serve } from "./handler.ts";
import { loadError } from "./load-error.ts";
import { watchBodies } from "./stream.ts";
import { ASSIGN_METHOD, ASSIGN_PATH, HEADER_DEADLINE, REHEARSAL_PATH, REQUEST_BODY_BYTES_MAX, type Assign, type AssignOk, type LoadError } from "./protocol.ts";

const json = Response.json;
const socketPath = process.argv[2]!;

/** Whether the worker was assigned, which happens once. After a failed import it is useless: modules stay cached, timers may be running. */
let assigned = false;
/** Answers requests. A variable, because exchanging the handler of Bun's server takes ten times as long as the indirection costs per invocation. */
let serve: Serve = unassigned;

async function unassigned(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (assigned || request.method !== ASSIGN_METHOD || (pathname !== ASSIGN_PATH && pathname !== REHEARSAL_PATH)) {
    return new Response("this worker has no function", { status: 503 });
  }
  if (pathname === REHEARSAL_PATH) return rehearse(request);
  assigned = true;
  const order = (await request.json()) as Assign;
  const loaded = await load(order);
  if ("error" in loaded) return json(loaded, { status: 422 });
  serve = loaded.serve;
  return json(loaded.answer);
}

/** Imports the function's module and finds its handler. */
async function load(order: Assign): Promise<{ serve: Serve; answer: AssignOk } | { error: LoadError }> {
  setLogLineBytesMax(order.log_line_bytes_max);
  // The object is kept: Bun, node:child_process and import.meta.env all refer to it.
  if (order.variables) Object.assign(process.env, order.variables);
  process.argv = [process.execPath, order.entry];
  const started = performance.now();
  let module: object;
  try {
    module = await importModule(order);
  } catch (error) {
    return { error: loadError(error, order.entry) };
  }
  const import_ms = Math.round((performance.now() - started) * 1000) / 1000;
  const found = findHandler(module, order.handler);
  if (!found) return { error: noHandler(module, order) };
  const info = { name: order.function, version: order.version, environment: order.environment };
  return { serve: serveWith(found.handler, info), answer: { kind: found.kind, import_ms, bun: Bun.version } };
}

/** Imports the compiled form or, because that may be removed at any time, the file itself, which only loads more slowly. */
async function importModule({ entry, compiled }: Assign): Promise<object> {
  if (compiled !== undefined) {
    try {
      return await import(compiled);
    } catch (error: any) {
      if (error?.code !== "ERR_MODULE_NOT_FOUND" || error.specifier !== compiled) throw error;
    }
  }
  return import(entry);
}

function noHandler(module: object, { entry, handler }: Assign): LoadError {
  const exports = Object.keys(module);
  const wanted =
    handler === "default" || handler === "handler"
      ? "export a default function (req, ctx) => Response, or a default object with a fetch method"
      : `export a function named ${handler}, or an object of that name with a fetch method`;
  const has = isPlainClass(module, handler)
    ? "the export is a class without a static fetch method, and a class is not called without new"
    : exports.length === 0
      ? "the module exports nothing"
      : `the module exports ${exports.join(", ")}`;
  return { kind: "no_handler", name: "Error", message: `no handler found: ${has}; ${wanted}`, file: entry, exports };
}

/**
 * Assigns a file that does nothing and invokes it once, so that a prewarmed worker has done the initialisation that Bun does lazily on first
 * use. This takes a third off the time from a claim to the first answer.
 */
async function rehearse(request: Request): Promise<Response> {
  const loaded = await load((await request.json()) as Assign);
  if ("error" in loaded) return json(loaded, { status: 422 });
  const invocation = new Request("http://rehearsal/", { headers: { [HEADER_DEADLINE]: "1" } });
  await (await loaded.serve(invocation)).text();
  return json(loaded.answer);
}

// A process that reports unhandled errors and goes on serves the other invocations better than a dead one.
process.on("unhandledRejection", reportUnhandled);
process.on("uncaughtException", reportUnhandled);

await openControl(Context.dropped);
Bun.serve({
  unix: socketPath,
  development: false,
  idleTimeout: 0,
  maxRequestBodySize: REQUEST_BODY_BYTES_MAX,
  error: thrown,
  fetch: (request: Request) => serve(request),
} as any);
sendReady();
// Requests are read only after this file has run to its end. Parts that only the function needs are loaded while the
// daemon writes the assignment.
openContext();
captureConsole();
keepContextOfAbortListeners();
watchBodies();
