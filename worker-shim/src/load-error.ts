// Explains why a module could not be imported, with file, line and column if they are known.

import { ERROR_TEXT_BYTES_MAX, type LoadError } from "./protocol.ts";
import { cut, errorParts } from "./text.ts";

/** Bytes to which a quoted source line is cut: a minified bundle is one line. */
const LINE_TEXT_BYTES_MAX = 512;

/**
 * Classifies an import error. Bun reports errors of its own parser as a message with a position, alone or in an AggregateError; errors that
 * only the engine finds as a SyntaxError with a line at best; an unresolved import as a message with a code. Other errors were thrown by the
 * module's own code.
 */
export function loadError(error: any, entry: string): LoadError {
  try {
    const first = error?.errors?.[0] ?? error;
    const more = error?.errors?.length > 1 ? ` (and ${error.errors.length - 1} more)` : "";
    if (first?.code === "ERR_MODULE_NOT_FOUND" || first?.code === "MODULE_NOT_FOUND") return missing(first, entry, more);
    if (first?.position || first?.name === "BuildMessage") return syntax(first, entry, more);
    if (error instanceof SyntaxError && error.stack === undefined) return engineSyntax(error as any);
  } catch {}
  return topLevelThrow(error);
}

function missing(message: any, entry: string, more: string): LoadError {
  if (message.specifier === entry) {
    return { kind: "not_found", name: "ModuleNotFoundError", message: "the entry file of the bundle does not exist", file: entry };
  }
  const found: LoadError = { kind: "missing_module", name: "ModuleNotFoundError", message: cut(message.message, ERROR_TEXT_BYTES_MAX) + more };
  if (message.referrer) found.file = message.referrer;
  if (message.position) place(found, message.position);
  return found;
}

function syntax(message: any, entry: string, more: string): LoadError {
  const found: LoadError = { kind: "syntax", name: "SyntaxError", message: cut(message.message, ERROR_TEXT_BYTES_MAX) + more, file: entry };
  if (message.position) place(found, message.position);
  return found;
}

function engineSyntax(error: SyntaxError & { line?: number; column?: number; sourceURL?: string }): LoadError {
  const found: LoadError = { kind: "syntax", name: "SyntaxError", message: cut(error.message, ERROR_TEXT_BYTES_MAX) };
  if (error.sourceURL) found.file = error.sourceURL;
  if (error.line) found.line = error.line;
  if (error.column) found.column = error.column;
  return found;
}

function topLevelThrow(error: unknown): LoadError {
  const { name, message, stack } = errorParts(error);
  const found: LoadError = { kind: "throw", name, message };
  if (stack === null) return found;
  found.stack = stack;
  // The first frame that names a file: "at name (/path/file.ts:3:7)" or "at /path/file.ts:3:7".
  const frame = /^\s+at (?:.*\()?(\/.*?):(\d+):(\d+)\)?$/m.exec(stack);
  if (frame) {
    found.file = frame[1]!;
    found.line = Number(frame[2]);
    found.column = Number(frame[3]);
  }
  return found;
}

function place(found: LoadError, position: { file?: string; line?: number; column?: number; lineText?: string }): void {
  if (position.file) found.file = position.file;
  if (position.line) found.line = position.line;
  if (position.column) found.column = position.column;
  if (position.lineText) found.line_text = cut(position.lineText, LINE_TEXT_BYTES_MAX);
}
