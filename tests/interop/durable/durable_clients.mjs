// An execution as `@durable-streams/client` reads it, and a chat over `@durable-streams/aisdk-transport`, unmodified:
// `node durable_clients.mjs <scene> <json>`. Prints each item or message as it comes, and at the end what came of it.
import { createDurableChatTransport } from "@durable-streams/aisdk-transport";
import { stream } from "@durable-streams/client";
import { AbstractChat, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";

const [scene, argument] = process.argv.slice(2);
const given = JSON.parse(argument);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const headers = { Authorization: () => `Bearer ${given.token}` }; // asked for again at each request
const warnings = [];
console.warn = (...text) => warnings.push(text.join(" "));

/** The least that `AbstractChat` needs: a page without a framework. */
class State {
  status = "ready";
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = this.snapshot(message));
  snapshot = structuredClone;
}
class Chat extends AbstractChat {
  constructor(options) {
    super({ ...options, state: new State() });
  }
}
const transport = () =>
  createDurableChatTransport({ api: `${given.base}/ds/chat`, headers: { Authorization: `Bearer ${given.token}` } });

/** What a chat has when this is over; until then how many parts its answer has. */
async function seen(chat, done) {
  const look = () => chat.lastMessage?.role === "assistant" && say({ item: chat.lastMessage.parts.length });
  const looking = setInterval(look, 20);
  await done;
  clearInterval(looking);
  return { status: chat.status, error: chat.error?.message, message: chat.lastMessage };
}

const scenes = {
  async read() {
    const response = await stream({ url: given.url, offset: given.offset, live: given.live, headers });
    // Not `subscribeJson` and `closed`, which is settled before the last batch is handed over.
    for await (const item of response.jsonStream()) say({ item });
    return { offset: response.offset, closed: response.streamClosed, warnings };
  },

  /** The promise helpers, which end at the first moment when all was read. */
  async json() {
    const response = await stream({ url: given.url, offset: given.offset, live: given.live, headers });
    return { items: await response.json(), offset: response.offset, closed: response.streamClosed };
  },

  async refused() {
    try {
      await stream({ url: given.url, offset: given.offset, live: given.live, headers });
    } catch (error) {
      return { name: error.name, status: error.status };
    }
  },

  async chat() {
    const chat = new Chat({ id: given.chatId, transport: transport() });
    return seen(chat, chat.sendMessage({ text: given.text }, { body: { agent: given.agent } }));
  },

  /** A turn that asks for an approval, which is given: its answer is a stream of its own. */
  async approval() {
    const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
    const chat = new Chat({ id: given.chatId, transport: transport(), sendAutomaticallyWhen });
    const body = { agent: given.agent, toolApprovals: true };
    await chat.sendMessage({ text: given.text }, { body });
    const asked = chat.lastMessage.parts.find((part) => part.state === "approval-requested");
    say({ item: asked?.approval });
    await chat.addToolApprovalResponse({ id: asked.approval.id, approved: true, options: { body } });
    const isOver = () => chat.status === "error" || (chat.status === "ready" && chat.lastMessage.metadata.duration !== undefined);
    while (!isOver()) await new Promise((go) => setTimeout(go, 20));
    return seen(chat);
  },

  /** A page that is opened again while the agent is at work; nothing, if it is not. */
  async reopened() {
    const chat = new Chat({ id: given.chatId, transport: transport() });
    return seen(chat, chat.resumeStream());
  },
};

say(await scenes[scene]());
process.exit(0);
