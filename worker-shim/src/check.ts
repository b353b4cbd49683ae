// Syntax check: `bun --no-env-file --config=/dev/null --no-install check.js <file>` parses the file with Bun's own
// parser and prints one line of JSON, a `CheckResult`. It runs none of the file's code and follows none of its imports.
// The exit code is 0 either way.

import type { CheckResult } from "./protocol.ts";
import { cut, errorParts } from "./text.ts";

const loaders: Record<string, Bun.JavaScriptLoader> = { js: "js", mjs: "js", cjs: "js", jsx: "jsx", ts: "ts", mts: "ts", cts: "ts", tsx: "tsx" };

export function check(path: string, source: string): CheckResult {
  const extension = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  const loader = loaders[extension];
  if (!loader) return { ok: false, errors: [{ message: `.${extension} is not a file type that can be a function; use ${Object.keys(loaders).join(", ")}` }] };
  try {
    // A macro would run here, outside the sandbox of functions; with macros off, a macro is an error.
    const transpiler = new Bun.Transpiler({ loader, target: "bun", macro: false } as object);
    const { exports, imports } = transpiler.scan(source);
    // `scan` omits required modules; `scanImports` has them, but not the exports.
    const all = new Map([...imports, ...transpiler.scanImports(source)].map(({ path, kind }) => [`${kind} ${path}`, { path, kind }]));
    const isModule = exports.length > 0 || imports.some(({ kind }) => kind === "import-statement");
    const commonjs = !isModule && /\bmodule\.exports\b|\bexports\s*[.[]|\bObject\.defineProperty\(exports\b/.test(source);
    return { ok: true, exports, imports: [...all.values()], commonjs };
  } catch (error: any) {
    const found: any[] = error?.errors?.length ? error.errors : [error];
    return { ok: false, errors: found.slice(0, 20).map(parseError) };
  }
}

function parseError(error: any): { message: string; line?: number; column?: number; line_text?: string } {
  const { position } = error ?? {};
  return {
    message: errorParts(error).message,
    ...(position?.line && { line: position.line }),
    ...(position?.column && { column: position.column }),
    ...(position?.lineText && { line_text: cut(position.lineText, 512) }),
  };
}

if (import.meta.main) {
  const path = process.argv[2]!;
  let result: CheckResult;
  try {
    result = check(path, await Bun.file(path).text());
  } catch (error) {
    result = { ok: false, errors: [{ message: errorParts(error).message }] };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
