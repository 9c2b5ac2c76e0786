// A page with a chat of the Vercel AI SDK: with React's `useChat` for ai 7, with the class under it for ai 5 and 6, and
// for ai 7 over `WorkflowChatTransport`, which counts chunks (`ai7-counted`). For `all_clients.mjs`.
import { chatOf } from "./ai_sdk_chat.mjs";
import { headers, kind, lines, say, url } from "./all_given.mjs";

const [version, way] = kind.split("-");
const isCounted = way === "counted";
const sdk = await import(version);

// --- how a page keeps a chat -----------------------------------------------------------------------------------------
// `next` waits until it may have changed; `settled`, until the page has what the chat has.

/** The class under the hook. */
const plain = () =>
  class extends chatOf(sdk) {
    async settled() {}
  };

/** A mounted component, and what its hook has returned last. */
async function hooked() {
  const { JSDOM } = await import("jsdom");
  const dom = new JSDOM("<div id=root></div>", { url: "http://localhost/", pretendToBeVisual: true });
  Object.assign(globalThis, { window: dom.window, document: dom.window.document });
  globalThis.navigator ??= dom.window.navigator; // which newer Nodes have themselves
  const { createElement } = await import("react");
  const { createRoot } = await import("react-dom/client");
  const { useChat } = await import("@ai-sdk/react");

  return class {
    #woken = [];
    constructor(init) {
      const Page = () => {
        this.shown = useChat(init);
        queueMicrotask(() => this.wake());
        return createElement("p", null, this.shown.status);
      };
      createRoot(document.getElementById("root").appendChild(document.createElement("div"))).render(createElement(Page));
    }
    get status() {
      return this.shown.status;
    }
    get error() {
      return this.shown.error;
    }
    get messages() {
      return this.shown.messages;
    }
    get lastMessage() {
      return this.shown.messages.at(-1);
    }
    sendMessage = (message) => this.shown.sendMessage(message);
    resumeStream = () => this.shown.resumeStream();
    wake() {
      for (const wake of this.#woken.splice(0)) wake();
    }
    next() {
      return new Promise((wake) => this.#woken.push(wake));
    }
    async settled() {
      await new Promise(setImmediate); // by then React has begun to show what the store has
      while (!["ready", "error"].includes(this.shown?.status)) await this.next();
    }
  };
}

const Page = kind === "ai7" ? await hooked() : plain();

/** Asks again at the next URL by itself, from the chunk on at which its stream was cut. */
async function countedTransport() {
  const { WorkflowChatTransport } = await import("@ai-sdk/workflow/client");
  let leg = -1;
  return new WorkflowChatTransport({
    api: `${url(0)}/api/agent/chat`,
    prepareReconnectToStreamRequest: () => ({ headers }),
    fetch: (address, init) => {
      leg += 1;
      if (leg > 0) say({ at: "lost", how: String(address) });
      return fetch(String(address).replace(url(0), url(leg)), init);
    },
  });
}

// --- what it does ----------------------------------------------------------------------------------------------------

export async function follow(job, number) {
  let leg = 0;
  const api = () => `${url(leg)}/api/agent/chat`;
  const chat = new Page({
    id: job.thread ?? `chat-${number}`,
    messages: job.execution ? [{ id: "u1", role: "user", parts: [{ type: "text", text: job.text }] }] : [],
    onError: () => {},
    transport: isCounted
      ? await countedTransport()
      : new sdk.DefaultChatTransport({
          api: api(),
          headers,
          body: { agent: job.agent, params: job.params },
          prepareReconnectToStreamRequest: ({ id }) => ({ api: `${api()}/${id}/stream`, headers }),
        }),
  });
  await chat.settled();
  const over = new AbortController();
  const answering = answerAll(chat, job, over.signal);
  await (job.execution ? chat.resumeStream() : chat.sendMessage({ text: job.text }));
  await chat.settled();
  while (chat.status === "error" && !("error" in (chat.lastMessage.metadata ?? {}))) {
    say({ at: "lost", how: String(chat.error) });
    leg += 1;
    await chat.resumeStream();
    await chat.settled();
  }
  over.abort();
  chat.wake();
  await answering;
  return outcome(chat);
}

/** Answers every question as it is asked. */
async function answerAll(chat, job, signal) {
  const answered = new Set();
  while (!signal.aborted) {
    const open = (chat.lastMessage?.parts ?? []).find(
      (part) => part.type === "data-input" && part.data.state === "required" && !answered.has(part.data.inputId),
    );
    if (!open) {
      await chat.next();
      continue;
    }
    answered.add(open.data.inputId);
    say({ at: "asked", prompt: open.data.prompt });
    if ("answer" in job) await answer(job, open.data);
  }
}

async function answer(job, { executionId, inputId }) {
  if (job.waits) await lines.next();
  const response = await fetch(`${url(9)}/api/agent/executions/${executionId}/input`, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ inputId, value: job.answer }),
  });
  if (response.status !== 202) throw new Error(`answered ${response.status}: ${await response.text()}`);
}

// --- what it has -----------------------------------------------------------------------------------------------------

/** The message, without what a lost attempt made: text, thoughts and calls above the mark, data parts that say so. */
function outcome(chat) {
  const said = chat.lastMessage;
  const mark = said.parts.findLastIndex((part) => part.type === "data-superseded");
  const parts = said.parts.filter((part, at) => (part.type.startsWith("data-") ? !part.data.superseded : at > mark));
  const of = (type) => parts.filter((part) => part.type === type);
  const data = (name) => of(`data-${name}`).map((part) => part.data);
  const made = {};
  for (const each of data("artifact")) made[each.artifactId] = (each.append ? made[each.artifactId] : "") + each.text;
  const complete = (each) => each.state === "complete";
  return {
    status: chat.status === "ready" ? "completed" : chat.status,
    text: of("text").map((part) => part.text).join(""),
    tools: of("dynamic-tool").map(({ toolName, input, output, errorText }) => ({
      name: toolName,
      params: input,
      ...(errorText === undefined ? { result: output } : { error: errorText }),
    })),
    result: said.metadata.result,
    partials: data("partial-result").map((each) => each.result),
    artifacts: made,
    phases: data("phase").filter(complete).map((each) => each.name),
    thoughts: of("reasoning").map((part) => part.text),
    specialists: data("specialist").filter(complete).map((each) => each.specialist).sort(),
    customs: data("custom").map((each) => `custom:${each.name}`),
    usage: said.metadata.usage,
    attempt: said.metadata.attempt,
    prompts: data("input").map((each) => each.prompt),
    progress: data("progress").filter((each) => !each.specialist).at(-1)?.progress,
    open: said.parts.filter((part) => part.state === "streaming" || part.state === "input-available").length,
    messages: chat.messages.length,
  };
}
