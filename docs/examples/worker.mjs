import { createWorker } from "@runcast/emitter/worker";
import { stopOnSignal } from "@runcast/emitter/node";

const worker = createWorker({
  url: process.env.RUNCAST_URL,
  token: process.env.RUNCAST_TOKEN, // scope: jobs:run
  agents: {
    translator: {
      description: "Translates a word",
      async run({ emitter, task, signal, ask }) {
        const found = await emitter.tool("look_up", { word: task }, () => lookUp(task, signal));
        await emitter.text(`${task} is ${found}.`);
        return { found, checked: await ask("Is that right?") };
      },
    },
  },
});
stopOnSignal(worker); // running jobs finish, or go to other workers
await worker.run();

async function lookUp(word, signal) {
  signal.throwIfAborted();
  return { hello: "hallo", world: "Welt" }[word] ?? "unknown";
}
