// Protocol between the daemon and a worker. The Rust side has the same names in its `protocol::worker` module, and both
// sides' tests read `tests/golden/worker/`. Data only: nothing here acts.

/** Besides the rehearsal, the only request that a worker answers before it has a function: `PUT /assign` with an `Assign` as JSON. */
export const ASSIGN_METHOD = "PUT";
export const ASSIGN_PATH = "/assign";
/** Like an assignment, but with a stand-in file, and the worker remains unassigned. Only before the assignment. */
export const REHEARSAL_PATH = "/rehearsal";

/** Id of the invocation. It stays on the request, so the function sees it too. */
export const HEADER_INVOCATION_ID = "x-invocation-id";
/** Milliseconds that the invocation has left, an integer. Removed before the function sees the request. */
export const HEADER_DEADLINE = "x-levain-deadline";
/** On an answer of the shim for a function that gave none: `throw` or `not_a_response`. */
export const HEADER_ERROR = "x-levain-error";
/** On an answer whose invocation still has `waitUntil` promises: a `settled` message follows later. */
export const HEADER_PENDING = "x-levain-pending";

/** Default and floor of `log_line_bytes_max`: a log message is cut to this many bytes of UTF-8, marker included. */
export const LOG_LINE_BYTES_DEFAULT = 16_384;
export const LOG_LINE_BYTES_FLOOR = 256;
/** A name, a message or a stack in an error is cut to this many bytes of UTF-8. */
export const ERROR_TEXT_BYTES_MAX = 16_384;
/** Largest request body Bun lets through. The daemon enforces the limit that users configure. */
export const REQUEST_BODY_BYTES_MAX = 2 ** 40;

export type ErrorSort = "throw" | "not_a_response";
export type HandlerKind = "default" | "fetch" | "named" | "commonjs";
export type LoadErrorKind = "syntax" | "missing_module" | "no_handler" | "throw" | "not_found";
export type LogLevel = "debug" | "info" | "warn" | "error";

/** Daemon → worker, body of `PUT /assign`: from now on this worker runs this function. */
export interface Assign {
  function: string;
  function_id: string;
  version: string;
  environment: string;
  /** Absolute path of the module to import. */
  entry: string;
  /** Absolute path of the compiled form, imported instead as long as it exists. */
  compiled?: string;
  /** Name of the export to call. `default` and `handler` both accept a default export. */
  handler: string;
  variables?: Record<string, string>;
  log_line_bytes_max?: number;
  /** Version of the daemon. */
  levain?: string;
}

/** Worker → daemon, 200 to `PUT /assign`. */
export interface AssignOk {
  kind: HandlerKind;
  import_ms: number;
  bun: string;
}

/** Worker → daemon, 422 to `PUT /assign`. Unknown fields are absent. Lines and columns count from 1. */
export interface LoadError {
  kind: LoadErrorKind;
  name: string;
  message: string;
  stack?: string;
  file?: string;
  line?: number;
  column?: number;
  line_text?: string;
  /** Names that the module does export, for `no_handler`. */
  exports?: string[];
}

/** Body of a 500 that carries `x-levain-error`. */
export interface InvocationError {
  name: string;
  message: string;
  stack: string | null;
}

/** Worker → daemon on the control channel, one JSON object a line. */
export type ControlMessage =
  | { type: "ready"; bun: string }
  | { type: "log"; level: LogLevel; invocation: string | null; message: string; dropped?: number }
  | { type: "rejection"; invocation: string | null; guessed?: true; message: string; stack: string | null; dropped?: number }
  | { type: "settled"; invocation: string }
  | { type: "pong"; number: number };

/**
 * Daemon → worker on the control channel, optional: the connection of this invocation was dropped before its answer was complete. A worker
 * whose handler still runs sends `settled` when it has ended, as it does unasked; one whose handler has returned sends it at once. Both may
 * happen, so a second `settled` is meaningless.
 */
export interface Dropped {
  type: "dropped";
  invocation: string;
}

/** Daemon → worker on the control channel: asks whether the event loop turns. The answer is a `pong` with the same number. */
export interface Ping {
  type: "ping";
  number: number;
}

/** Output of `check.ts`. Lines and columns count from 1. */
export type CheckResult =
  | { ok: true; exports: string[]; imports: { path: string; kind: string }[]; commonjs: boolean }
  | { ok: false; errors: { message: string; line?: number; column?: number; line_text?: string }[] };

/** File that `compile.ts` writes to its folder, imported instead of the original. */
export const COMPILED_FILE = "levain_compiled.js";

/** Output of `compile.ts`. */
export type CompileResult = { ok: true } | { ok: false; reason: string };

/** File that `build.ts` makes, and the folder where a worker finds it. */
export const BUNDLE_FILE = "bundle.js";
export const BUNDLE_FOLDER = "/bundle";

/** A message of `build.ts` about a project. Lines and columns count from 1; the file is relative to the project. */
export interface BuildProblem {
  message: string;
  file?: string;
  line?: number;
  column?: number;
  line_text?: string;
}

/** Output of `build.ts`. */
export interface BuildResult {
  ok: boolean;
  problems: BuildProblem[];
  warnings: BuildProblem[];
}
