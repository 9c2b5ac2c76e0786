/**
 * Opens an execution with the browser client, in a process that has opened only a short one before, as a page has with
 * its list, and prints {ms, frames, text}: the time to the state at `stream:live`, and what it has by then.
 *
 *     node replay_client.mjs URL TOKEN SHORT EXECUTION COMPACT
 */
import process from "node:process";
import { Fold, RuncastClient } from "../../broker/web/client/index.js";

const [url, token, short, long, compact] = process.argv.slice(2);
const client = new RuncastClient({ baseUrl: url, token });

/** @param {string} executionId @returns {Promise<{ms: number, frames: number, text: number}>} */
function opened(executionId) {
  const fold = new Fold(executionId);
  const began = performance.now();
  let frames = 0;
  return new Promise((resolve) => {
    const stream = client.stream({
      executionId,
      compact: compact === "true",
      onEvent(event) {
        frames += 1;
        fold.apply(event);
      },
      onControl({ type }) {
        frames += 1;
        if (type !== "stream:live") return;
        const text = fold.state().text.length;
        resolve({ ms: performance.now() - began, frames, text });
        stream.close();
      },
    });
    stream.start();
  });
}

await opened(short);
console.log(JSON.stringify(await opened(long)));
process.exit(0);
