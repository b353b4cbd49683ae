// The words the daemon and a worker share. The Rust side has the same names in its `protocol::worker` module, and both
// sides' tests read `tests/golden/worker/`. Data only: nothing here acts.

/** With the one below, the only request a worker answers before it has a function: `PUT /assign` with an `Assign` as JSON. */
export const ASSIGN_METHOD = "PUT";
export const ASSIGN_PATH = "/assign";
/** The same with a file that stands for a function; the worker is left without one. Only before the assignment. */
export const REHEARSAL_PATH = "/rehearsal";

/** The invocation's id. It stays on the request, so the function sees it too. */
export const HEADER_INVOCATION_ID = "x-invocation-id";
/** Milliseconds the invocation has left, an integer. Taken off before the function sees the request. */
export const HEADER_DEADLINE = "x-levain-deadline";
/** On an answer the shim wrote itself because the function gave none: `throw` or `not_a_response`. */
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
  /** Absolute path of its compiled form, to be imported instead as long as it exists. */
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

/** Worker → daemon, 422 to `PUT /assign`. What is not known is absent. Lines and columns count from 1. */
export interface LoadError {
  kind: LoadErrorKind;
  name: string;
  message: string;
  stack?: string;
  file?: string;
  line?: number;
  column?: number;
  line_text?: string;
  /** The names the module does export, for `no_handler`. */
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
 * whose handler still runs says `settled` when it has ended, as it does unasked; one whose handler has returned says it at once.
 * Both may happen, so a second `settled` means nothing.
 */
export interface Dropped {
  type: "dropped";
  invocation: string;
}

/** Daemon → worker on the control channel: does the event loop turn? The answer is a `pong` with the same number. */
export interface Ping {
  type: "ping";
  number: number;
}

/** What `check.ts` prints. Lines and columns count from 1. */
export type CheckResult =
  | { ok: true; exports: string[]; imports: { path: string; kind: string }[]; commonjs: boolean }
  | { ok: false; errors: { message: string; line?: number; column?: number; line_text?: string }[] };

/** The file that `compile.ts` leaves in its folder, to be imported instead of the one it was made from. */
export const COMPILED_FILE = "levain_compiled.js";

/** What `compile.ts` prints. */
export type CompileResult = { ok: true } | { ok: false; reason: string };

/** The file that `build.ts` makes, and where a worker finds its folder. */
export const BUNDLE_FILE = "bundle.js";
export const BUNDLE_FOLDER = "/bundle";

/** Something that `build.ts` has to say about a project. Lines and columns count from 1; the file is relative to the project. */
export interface BuildProblem {
  message: string;
  file?: string;
  line?: number;
  column?: number;
  line_text?: string;
}

/** What `build.ts` writes. */
export interface BuildResult {
  ok: boolean;
  problems: BuildProblem[];
  warnings: BuildProblem[];
}
