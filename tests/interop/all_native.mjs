// The native protocol's client, which folds what it gets. For `all_clients.mjs`.
import { RuncastClient } from "../../broker/web/client/index.js";
import { given, say, url } from "./all_given.mjs";

export async function follow(job) {
  let leg = 0;
  const elsewhere = (address, options) => fetch(String(address).replace(url(0), url(leg)), options);
  const client = new RuncastClient({ baseUrl: url(0), token: given.token, fetch: elsewhere });
  const ids = [];
  const asked = [];
  const watch = client.watch(job.execution, {
    onEvent: ({ id, type, data }) => {
      ids.push(id);
      if (type !== "input:required") return;
      asked.push(data.prompt);
      say({ at: "asked", prompt: data.prompt });
    },
    onStatus: ({ phase, error }) => {
      if (phase !== "waiting") return;
      leg += 1;
      say({ at: "lost", how: String(error) });
    },
  });
  await new Promise((done, fail) => {
    watch.subscribe(() => {
      const { phase, error } = watch.getSnapshot().status;
      if (phase === "ended") done();
      if (phase === "failed") fail(error);
    });
    watch.start();
  });
  return { state: watch.getSnapshot().state, ids, prompts: asked };
}
