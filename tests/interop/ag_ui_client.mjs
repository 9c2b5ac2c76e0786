// An application with an AG-UI agent, the client's own `HttpAgent`: `node ag_ui_client.mjs <scene> <json of what it needs>`.
// Prints, as JSON, what the application has in the end. The scenes are at the end.
import { HttpAgent } from "@ag-ui/client";

const [scene, argument] = process.argv.slice(2);
const given = JSON.parse(argument);
const warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));
process.on("unhandledRejection", () => {}); // the client also rethrows a lost connection where nobody can catch it
console.error = () => {}; // a failed run is reported by what it throws

/** Bytes as they come; `isCut(text)` says whether the connection is lost before these are read. */
function watched(response, seen, isCut) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  /** Whole blocks, however they were cut on the way; none at the end. */
  async function blocks() {
    for (;;) {
      const { done, value } = await reader.read();
      const read = (rest + decoder.decode(value, { stream: !done })).split(/(?<=\n\n)/);
      rest = done || read.at(-1).endsWith("\n\n") ? "" : read.pop();
      if (done || read.length) return read.filter(Boolean);
    }
  }
  const body = new ReadableStream({
    async pull(controller) {
      const read = await blocks();
      if (!read.length) return controller.close();
      for (const block of read) {
        if (isCut(block)) {
          await reader.cancel();
          await applied(seen); // what it has not applied yet, the client forgets when the connection is lost
          return controller.error(new TypeError("terminated"));
        }
        seen.raw += block;
        controller.enqueue(new TextEncoder().encode(block));
      }
    },
    cancel: () => reader.cancel(),
  });
  return new Response(body, { status: response.status, headers: response.headers });
}

/** All that was read has been applied. */
async function applied(seen) {
  const frames = seen.raw.split("data: ").length - 1;
  do await new Promise((done) => setTimeout(done));
  while (seen.events.length < frames);
}

/** An agent of ours at one of the edges. `path` is what is asked for by GET instead of a run by POST. */
function agent({ edge = 0, name = given.agent, path, cursor, isCut = () => false, ...config } = {}) {
  const seen = { raw: "", events: [], results: [] };
  const headers = { Authorization: `Bearer ${given.token}`, ...(cursor && { "Last-Event-ID": cursor }) };
  const made = new HttpAgent({
    url: given.edges[edge] + "/ag-ui" + (name ? `/${name}` : ""),
    threadId: given.threadId,
    headers,
    initialState: { theirs: 1 },
    ...config,
    fetch: async (url, init) => {
      const response = await (path ? fetch(given.edges[edge] + path, { headers, signal: init.signal }) : fetch(url, init));
      return response.ok ? watched(response, seen, isCut) : response;
    },
  });
  made.seen = seen;
  made.subscribe({
    onEvent: ({ event }) => void seen.events.push(event),
    onRunFinishedEvent: (finished) =>
      void seen.results.push({ outcome: finished.outcome, result: finished.result, pending: finished.pendingToolCallIds }),
  });
  return made;
}

/** The id of the last frame that has one. */
const cursorOf = ({ seen }) => [...seen.raw.matchAll(/^id: (.*)$/gm)].at(-1)?.[1];
const ask = (text = "t") => [{ id: "u1", role: "user", content: text }];

async function run(it, parameters) {
  try {
    await it.runAgent(parameters);
    return null;
  } catch (error) {
    return { message: error.message, status: error.status, payload: error.payload };
  }
}

const kept = (it, error = null) => ({
  error,
  warnings,
  messages: it.messages,
  state: it.state,
  interrupts: it.pendingInterrupts,
  events: it.seen.events,
  results: it.seen.results,
  raw: it.seen.raw,
});

/** The same agent, as it is, at another edge. */
function moved(it, options) {
  const other = agent({ initialMessages: it.messages, initialState: it.state, ...options });
  other.pendingInterrupts = it.pendingInterrupts;
  return other;
}

const scenes = {
  /** One run to its end. */
  async run() {
    const it = agent({ initialMessages: given.messages ?? ask(given.text) });
    return kept(it, await run(it, { runId: given.runId, forwardedProps: given.props, tools: given.tools, context: given.context }));
  },

  /** Runs and answers, each at the other edge, until nothing is asked any more. */
  async resume() {
    let it = agent({ initialMessages: ask() });
    const runs = [];
    let error = await run(it, { runId: given.runId });
    runs.push(kept(it, error));
    for (const answer of given.answers) {
      const resume = it.pendingInterrupts.map(({ id }) => ({ interruptId: id, ...answer }));
      it = moved(it, { edge: runs.length % given.edges.length });
      error = await run(it, { resume });
      runs.push(kept(it, error));
    }
    return { runs };
  },

  /** The connection is lost before `given.cut` is read, and the same run is asked for again elsewhere. */
  async again() {
    const first = agent({ initialMessages: ask(), isCut: (block) => block.includes(given.cut) });
    const lost = await run(first, { runId: given.runId });
    const props = given.withCursor ? { cursor: cursorOf(first) } : {};
    const second = moved(first, { edge: 1 });
    return { lost, first: kept(first), second: kept(second, await run(second, { runId: given.runId, forwardedProps: props })) };
  },

  /** An application that did not start the run is shown it, from where `given.cursor` says. */
  async attach() {
    const it = agent({ edge: 1, path: given.path, cursor: given.cursor, initialMessages: given.messages, initialState: given.state });
    return kept(it, await run(it, {}));
  },

  /** Messages to the agent at work: by the run's id, by its thread, each again, and one that ends the run. */
  async steer() {
    const first = agent({ initialMessages: ask() });
    const running = run(first, { runId: given.runId });
    while (!first.state.execution?.activity) await new Promise((done) => setTimeout(done, 10));
    const others = [];
    for (const [at, text] of ["shorter", "shorter", "louder", "stop"].entries()) {
      const messages = [...first.messages, { id: `said-${text}`, role: "user", content: text }];
      const it = agent({ edge: at % 2, initialMessages: messages });
      others.push([it, run(it, { runId: at < 2 ? given.runId : `run-${text}`, forwardedProps: given.props })]);
      while (!it.seen.events.length) await new Promise((done) => setTimeout(done, 10));
    }
    const error = await running;
    const shown = await Promise.all(others.map(async ([it, work]) => kept(it, await work)));
    return { first: kept(first, error), others: shown };
  },

  /** A recorded response. */
  async recorded() {
    const it = new HttpAgent({ url: "http://recorded", threadId: "t", fetch: async () => new Response(given.body, { headers: { "Content-Type": "text/event-stream" } }) });
    it.seen = { raw: given.body, events: [], results: [] };
    it.subscribe({ onEvent: ({ event }) => void it.seen.events.push(event) });
    return kept(it, await run(it, {}));
  },
};

console.log(JSON.stringify(await scenes[scene]()));
process.exit(0);
