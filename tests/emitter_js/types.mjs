/**
 * The declarations of @runcast/emitter: `node types.mjs` type-checks the modules (strict) and writes declarations beside
 * them. `node types.mjs FOLDER` writes them elsewhere, for a test to compare.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import ts from "typescript";

const EMITTER = path.resolve(import.meta.dirname, "../../emitter/js");
const OPTIONS = {
  strict: true,
  noImplicitOverride: true,
  noFallthroughCasesInSwitch: true,
  noUnusedLocals: true,
  target: ts.ScriptTarget.ES2022,
  lib: [
    "lib.es2023.d.ts",
    "lib.esnext.disposable.d.ts",
    "lib.dom.d.ts",
    "lib.dom.iterable.d.ts",
    "lib.dom.asynciterable.d.ts",
  ],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: [],
  allowJs: true,
  checkJs: true,
  declaration: true,
  emitDeclarationOnly: true,
  skipLibCheck: true,
};

/** A copy without declarations, or the compiler would read those instead of the modules. */
const copy = fs.mkdtempSync(path.join(os.tmpdir(), "runcast-types-"));
try {
  const isSource = (name) => !name.endsWith(".d.ts") || path.basename(name) === "events.d.ts";
  fs.cpSync(EMITTER, copy, { recursive: true, filter: isSource });
  const modules = fs.readdirSync(copy).filter((name) => name.endsWith(".js"));
  const roots = modules.map((name) => path.join(copy, name));
  const program = ts.createProgram(roots, { ...OPTIONS, outDir: path.resolve(process.argv[2] ?? EMITTER) });
  const emitted = program.emit();
  const found = [...ts.getPreEmitDiagnostics(program), ...emitted.diagnostics];
  const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => copy, getNewLine: () => "\n" };
  process.stdout.write(ts.formatDiagnostics(ts.sortAndDeduplicateDiagnostics(found), host));
  process.exitCode = found.length === 0 ? 0 : 1;
} finally {
  fs.rmSync(copy, { recursive: true });
}
