/**
 * The client's declarations, the hooks' and the store's: `node types.mjs` type-checks the modules (strict) and writes
 * declarations beside them. `node types.mjs FOLDER` writes them elsewhere, for a test to compare; `node types.mjs usage`
 * checks what an application in TypeScript sees of those beside the modules.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import ts from "typescript";

const HERE = import.meta.dirname;
const CLIENT = path.resolve(HERE, "../../../broker/web/client");
const ROOTS = ["index", "shared-worker", "react", "store"];
const PACKAGES = {
  react: [`${HERE}/node_modules/@types/react/index.d.ts`],
  "react/jsx-runtime": [`${HERE}/node_modules/@types/react/jsx-runtime.d.ts`],
  zustand: [`${HERE}/node_modules/zustand5/esm/index.d.mts`],
};
const OPTIONS = {
  strict: true,
  noImplicitOverride: true,
  noFallthroughCasesInSwitch: true,
  target: ts.ScriptTarget.ES2022,
  lib: ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts", "lib.dom.asynciterable.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: [],
};
const asked = process.argv[2] ?? CLIENT;

/** A copy without declarations, or the compiler would read those instead of the modules. */
const copy = fs.mkdtempSync(path.join(os.tmpdir(), "runcast-types-"));

function declarations() {
  const isSource = (name) => !name.endsWith(".d.ts") || path.basename(name) === "events.d.ts";
  fs.cpSync(CLIENT, copy, { recursive: true, filter: isSource });
  const more = { allowJs: true, checkJs: true, declaration: true, emitDeclarationOnly: true, skipLibCheck: true };
  const roots = ROOTS.map((name) => path.join(copy, name + ".js"));
  const program = ts.createProgram(roots, { ...OPTIONS, ...more, paths: PACKAGES, outDir: path.resolve(asked) });
  const emitted = program.emit();
  return [...ts.getPreEmitDiagnostics(program), ...emitted.diagnostics];
}

/** The declarations are checked as well. */
function usage() {
  const entries = ["react", "store"].map((name) => [`@runcast/client/${name}`, [path.join(CLIENT, name + ".d.ts")]]);
  const paths = { ...PACKAGES, "@runcast/client": [path.join(CLIENT, "index.d.ts")], ...Object.fromEntries(entries) };
  const more = { noEmit: true, jsx: ts.JsxEmit.ReactJSX, skipDefaultLibCheck: true, paths };
  return ts.getPreEmitDiagnostics(ts.createProgram([path.join(HERE, "usage.tsx")], { ...OPTIONS, ...more }));
}

try {
  const found = asked === "usage" ? usage() : declarations();
  const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => copy, getNewLine: () => "\n" };
  process.stdout.write(ts.formatDiagnostics(ts.sortAndDeduplicateDiagnostics(found), host));
  process.exitCode = found.length === 0 ? 0 : 1;
} finally {
  fs.rmSync(copy, { recursive: true });
}
