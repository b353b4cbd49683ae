// Build: `bun --no-env-file --config=/dev/null --no-install build.js <entry> <folder> <result>`, started in the folder of a project, puts a
// bundle of the entry into the other folder and writes what became of it, a `BuildResult`, to the file `result`. Macros of the project run
// here, so the daemon starts this where nothing can be reached; they may also forge the result, which is about their own project only.
//
// The bundle is `bundle.js` with `bundle.js.map`, whose sources are named relative to the project, and the files that the code refers to.
// The same project gives the same bytes wherever its folder is.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { BUNDLE_FILE, BUNDLE_FOLDER, type BuildProblem, type BuildResult } from "./protocol.ts";
import { cut, errorParts } from "./text.ts";

/** Problems that are told; one mistake may have many. */
const PROBLEMS_MAX = 50;

/** A line that is shown is cut to this many bytes: a minified package is one line. */
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
      // Otherwise Bun writes down the value it has now; a function has variables of its own.
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

/** Nothing in a bundle tells where it was built: what it takes for its place is where it will be. The id of its map is one of the build. */
const settled = (code: string, root: string): string => code.replaceAll(root, BUNDLE_FOLDER).replace(/^\/\/# debugId=[0-9A-F]+\n/m, "");

/** The content of the sources would double the map, and without the word Bun does not read it. */
function map(text: string, root: string): string {
  const { debugId: _, ...map } = JSON.parse(text);
  // Bun names what is outside the project by its path.
  const sources = map.sources.map((source: string) => source.replaceAll(root, BUNDLE_FOLDER));
  return JSON.stringify({ ...map, sources, sourcesContent: sources.map(() => null) });
}

function problem(error: any, root: string): BuildProblem {
  const { position } = error ?? {};
  const file = position?.file ? relative(root, position.file) : undefined;
  // Nobody is asked to install anything here.
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
  // What a macro has left running is not waited for.
  process.exit(0);
}
