// The life of a worker: `bun --no-env-file --config=/dev/null --no-install entry.js <socket path>`, its working directory being its own.
// It runs as one file, `dist/entry.js` (`bun run build`): each file that Bun has to open costs a start about 0.3 ms.
//
//   start → `ready` on the control channel → PUT /assign (import, find the handler) → invocations → SIGKILL
//
// The daemon is the only client of the socket. Whatever the function does, this process is the only thing it can break.

import { keepContextOfAbortListeners } from "./abort.ts";
import { captureConsole, setLogLineBytesMax } from "./console.ts";
import { Context, reportUnhandled } from "./context.ts";
import { openControl, sendReady } from "./control.ts";
import { findHandler, isPlainClass, serveWith, thrown } from "./handler.ts";
import { loadError } from "./load-error.ts";
import { ASSIGN_METHOD, ASSIGN_PATH, HEADER_DEADLINE, REQUEST_BODY_BYTES_MAX, type Assign, type AssignOk, type LoadError } from "./protocol.ts";

const json = Response.json;
const socketPath = process.argv[2]!;

/** A worker is assigned once. After a failed import it is of no more use: modules stay cached, timers may be running. */
let assigned = false;

async function unassigned(request: Request): Promise<Response> {
  if (assigned || request.method !== ASSIGN_METHOD || new URL(request.url).pathname !== ASSIGN_PATH) {
    return new Response("this worker has no function", { status: 503 });
  }
  assigned = true;
  clearTimeout(rehearsal);
  const outcome = await assign((await request.json()) as Assign);
  return "error" in outcome ? json(outcome, { status: 422 }) : json(outcome);
}

async function assign(order: Assign): Promise<AssignOk | { error: LoadError }> {
  setLogLineBytesMax(order.log_line_bytes_max);
  // The same object is kept: Bun, node:child_process and import.meta.env all look at it.
  if (order.variables) Object.assign(process.env, order.variables);
  process.argv = [process.execPath, order.entry];
  const started = performance.now();
  let module: object;
  try {
    module = await import(order.entry);
  } catch (error) {
    return { error: loadError(error, order.entry) };
  }
  const import_ms = Math.round((performance.now() - started) * 1000) / 1000;
  const found = findHandler(module, order.handler);
  if (!found) return { error: noHandler(module, order) };
  const info = { name: order.function, version: order.version, environment: order.environment };
  server.reload({ ...options, fetch: serveWith(found.handler, info) });
  return { kind: found.kind, import_ms, bun: Bun.version };
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
 * Walks the path of an assignment and of an invocation once, so that a prewarmed worker has done what Bun does lazily on first use. A worker
 * that is assigned at once, because a caller waits for it, never comes here.
 */
async function rehearse(): Promise<void> {
  const request = new Request("http://rehearsal/", { method: "PUT", body: "{}" });
  Object.assign(process.env, (await request.json()) as object);
  const module = await import("data:text/javascript,export default () => Response.json({})");
  const { handler } = findHandler(module, "default")!;
  const info = { name: "", version: "", environment: "" };
  await (await serveWith(handler, info)(new Request("http://rehearsal/", { headers: { [HEADER_DEADLINE]: "1" } }))).text();
  if (!assigned) server.reload({ ...options, fetch: unassigned });
}

/** Long after a caller that waits for this start would have assigned it. */
const REHEARSAL_DELAY_MS = 15;

// A process that reports an error nobody handled and goes on is more use to the other invocations than a dead one.
process.on("unhandledRejection", reportUnhandled);
process.on("uncaughtException", reportUnhandled);

await openControl(Context.dropped);
captureConsole();
keepContextOfAbortListeners();
const options = {
  unix: socketPath,
  development: false,
  idleTimeout: 0,
  maxRequestBodySize: REQUEST_BODY_BYTES_MAX,
  error: thrown,
  fetch: unassigned,
};
const server = Bun.serve(options as any);
const rehearsal = setTimeout(rehearse, REHEARSAL_DELAY_MS);
sendReady();
