// Bundles page.jsx for each React: `node build.mjs FOLDER` writes FOLDER/react18.js and react19.js, and the worker.
import { build } from "esbuild";

const CLIENT = "../../../broker/web/client";
const VERSIONS = { react18: ["18", "4"], react19: ["19", "5"] };

await build({
  entryPoints: [`${CLIENT}/shared-worker.js`],
  outdir: process.argv[2],
  bundle: true,
  format: "esm",
  logLevel: "error",
});
for (const [name, [react, zustand]] of Object.entries(VERSIONS)) {
  await build({
    entryPoints: ["page.jsx"],
    outfile: `${process.argv[2]}/${name}.js`,
    bundle: true,
    format: "esm",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"', "import.meta.env": "undefined" },
    alias: {
      react: `./node_modules/react${react}`,
      "react-dom": `./node_modules/react-dom${react}`,
      zustand: `./node_modules/zustand${zustand}`,
      "@runcast/client": `${CLIENT}/index.js`,
      "@runcast/client/react": `${CLIENT}/react.js`,
      "@runcast/client/store": `${CLIENT}/store.js`,
    },
    logLevel: "error",
  });
}
