// Build: `bun --no-env-file --config=/dev/null --no-install build.js <entry> <folder> <result>`, started in the folder
// of a project, puts a bundle of the entry into the other folder and writes the outcome, a `BuildResult`, to the file
// `result`. Macros of the project run here, so the daemon starts this without access to anything; macros may also forge
// the result, but that affects only their own project.
//
// The output is `bundle.js` with `bundle.js.map`, whose sources are named relative to the project, and the files that
// the code refers to. The same project gives the same bytes wherever its folder is.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { BUNDLE_FILE, BUNDLE_FOLDER, type BuildProblem, type BuildResult } from "./protocol.ts";
import { cut, errorParts } from "./text.ts";

/** Maximum problems in the result; one mistake may cause many. */
const PROBLEMS_MAX = 50;

/** Bytes to which a quoted line is cut: a minified package is one line. */
const LINE_TEXT_BYTES_MAX = 512;

export async function build(root: string, entry: string, folder: string): Promise<BuildResult> {
  let built: Bun.BuildOutput;
  try {
    built = await Bun.build({
      entrypoints: [join(root, entry)],
      root,
      target: "bun",
      sourcemap: "linked",
      naming: { entry: BUNDLE_FILE, chunk: "[name]-[hash].[ext]", asset: "[name]-[hash].[ext]" },
      // Otherwise Bun inlines the value at build time; a function has variables of its own.
      define: { "process.env.NODE_ENV": "process.env.NODE_ENV" },
      throw: false,
    });
  } catch (error: any) {
    const all: any[] = error?.errors?.length ? error.errors : [error];
    return { ok: false, problems: all.slice(0, PROBLEMS_MAX).map((it) => problem(it, root)), warnings: [] };
  }
  const of = (level: (name: string) => boolean) => built.logs.filter((it) => level(it.level)).slice(0, PROBLEMS_MAX).map((it) => problem(it, root));
  const warnings = of((level) => level === "warning");
  if (!built.success) return { ok: false, problems: of((level) => level === "error"), warnings };
  for (const output of built.outputs) {
    const path = join(folder, output.path);
    mkdirSync(dirname(path), { recursive: true });
    if (output.kind === "sourcemap") writeFileSync(path, map(await output.text(), root));
    else if (output.kind === "asset") writeFileSync(path, new Uint8Array(await output.arrayBuffer()));
    else writeFileSync(path, settled(await output.text(), root));
  }
  return { ok: true, problems: [], warnings };
}

/** Removes traces of the build: replaces the project's path by the bundle's final folder, and drops the map's id, which is unique per build. */
const settled = (code: string, root: string): string => code.replaceAll(root, BUNDLE_FOLDER).replace(/^\/\/# debugId=[0-9A-F]+\n/m, "");

/** Removes the contents of the sources, which would double the map. Bun reads a map only if the key `sourcesContent` is present. */
function map(text: string, root: string): string {
  const { debugId: _, ...map } = JSON.parse(text);
  // Bun names files outside the project by their path.
  const sources = map.sources.map((source: string) => source.replaceAll(root, BUNDLE_FOLDER));
  return JSON.stringify({ ...map, sources, sourcesContent: sources.map(() => null) });
}

function problem(error: any, root: string): BuildProblem {
  const { position } = error ?? {};
  const file = position?.file ? relative(root, position.file) : undefined;
  // Drops Bun's hint to install packages, which makes no sense here.
  const message = errorParts(error).message.replace(/\. Maybe you need to "bun install"\?$/, "").replaceAll(`${root}/`, "");
  return {
    message,
    ...(file && { file }),
    ...(position?.line && { line: position.line }),
    ...(position?.column && { column: position.column }),
    ...(position?.lineText && { line_text: cut(position.lineText, LINE_TEXT_BYTES_MAX) }),
  };
}

if (import.meta.main) {
  const [entry, folder, result] = process.argv.slice(2) as [string, string, string];
  mkdirSync(folder, { recursive: true });
  writeFileSync(result, JSON.stringify(await build(process.cwd(), entry, folder)));
  // Does not wait for anything that a macro left running.
  process.exit(0);
}
