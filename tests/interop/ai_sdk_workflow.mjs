// Chats of `ai` 7 over `WorkflowChatTransport`, through a proxy that cuts: `node ai_sdk_workflow.mjs <scene> <json>`.
// Prints what came of it, as JSON. The scenes are at the end.
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";
import * as sdk from "ai7";
import readline from "node:readline";
import { chatOf } from "./ai_sdk_chat.mjs";
import { cuttingProxy } from "./cutting_proxy.mjs";

const [scene, argument] = process.argv.slice(2);
const given = JSON.parse(argument);
const Chat = chatOf(sdk);
const proxy = await cuttingProxy(given.ports);
console.error = () => {}; // the transport's notes about each cut

const headers = { Authorization: `Bearer ${given.token}`, "Content-Type": "application/json" };
const user = { id: given.messageId ?? "u1", role: "user", parts: [{ type: "text", text: "t" }] };

function transportOf(options = {}) {
  const ended = {};
  const transport = new WorkflowChatTransport({
    api: `${proxy.url}/api/agent/chat`,
    prepareSendMessagesRequest: ({ messages }) => ({
      headers,
      body: { messages, agent: given.agent, id: given.chatId, toolApprovals: given.toolApprovals },
    }),
    prepareReconnectToStreamRequest: () => ({ headers: { Authorization: headers.Authorization } }),
    onChatEnd: ({ chunkIndex }) => (ended.chunks = chunkIndex),
    ...options,
  });
  return { transport, ended };
}

/** One question and its answer, in a page of its own. */
async function turn(cuts, options) {
  Object.assign(proxy, { cuts: [...cuts], seen: [], next: 0 });
  const { transport, ended } = transportOf(options);
  const chat = new Chat({ id: given.chatId ?? "page", messages: [user], transport, onError: () => {} });
  await chat.sendMessage(undefined);
  return { status: chat.status, error: chat.error?.message, message: chat.lastMessage, ...ended, requests: proxy.seen };
}

/** The same of a run that asks for an approval, which is given; the cuts are of what follows. */
async function approvedTurn(cuts) {
  Object.assign(proxy, { cuts: [], seen: [], next: 0 });
  const { transport, ended } = transportOf();
  const sendAutomaticallyWhen = sdk.lastAssistantMessageIsCompleteWithApprovalResponses;
  const chat = new Chat({ id: given.chatId, messages: [user], transport, sendAutomaticallyWhen, onError: () => {} });
  await chat.sendMessage(undefined);
  const asked = chat.lastMessage.parts.find((part) => part.state === "approval-requested");
  proxy.cuts = [...cuts];
  await chat.addToolApprovalResponse({ id: asked.approval.id, approved: true });
  while (chat.status !== "error" && !(chat.status === "ready" && chat.lastMessage.metadata.duration !== undefined)) await chat.next();
  return { status: chat.status, error: chat.error?.message, message: chat.lastMessage, ...ended, requests: proxy.seen };
}

async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const same = (one, other) => JSON.stringify([one.status, one.error, one.message]) === JSON.stringify([other.status, other.error, other.message]);

const scenes = {
  /** A run that has ended, whole, and cut at each of its chunks in every way; which of these differ from it. */
  async cuts() {
    const whole = await turn([]);
    const differ = [];
    let tried = 0;
    for (const how of ["break", "torn", "end"])
      for (let after = 0; after < given.chunks; after++) {
        const cut = await turn([{ after, how }]);
        tried++;
        // After an error chunk the page asks for nothing more.
        if (!same(cut, whole) || cut.chunks !== whole.chunks || cut.requests.length !== 2) differ.push({ how, after, ...cut });
      }
    const once = await turn(Array.from({ length: 1000 }, (_, index) => ({ after: 1, how: index % 2 ? "end" : index ? "end" : "break" })));
    if (!same(once, whole)) differ.push({ how: "at each", ...once });
    return { whole, tried, differ: differ.slice(0, 3), requests: once.requests.length };
  },

  /** A run with an approval, cut at each chunk of what follows it. */
  async approval() {
    const whole = await approvedTurn([]);
    const differ = [];
    for (const how of ["break", "end"])
      for (let after = 0; after < whole.chunks; after++) {
        const cut = await approvedTurn([{ after, how }]);
        if (!same(cut, whole)) differ.push({ how, after, ...cut });
      }
    return { whole, differ: differ.slice(0, 3) };
  },

  /** A run that goes on meanwhile: each response is cut after some chunks, by turns at another edge. */
  async live() {
    const cuts = Array.from({ length: 1000 }, (_, index) => ({ after: 1 + (index % 3), how: "end" }));
    return turn(cuts);
  },

  /** A run whose edges come and go. A line on stdin names the ports that answer from then on; one is printed for each chunk. */
  async edges() {
    readline.createInterface({ input: process.stdin }).on("line", (line) => (proxy.ports = JSON.parse(line)));
    const { transport } = transportOf({ maxConsecutiveErrors: given.maxErrors });
    const stream = await transport.sendMessages({ chatId: "page", messages: [user], trigger: "submit-message" });
    const chunks = [];
    for await (const chunk of stream) {
      chunks.push(chunk);
      process.stdout.write(JSON.stringify(chunk) + "\n");
    }
    return { chunks, requests: proxy.seen };
  },

  /** What a page gets that is opened again, from `startIndex` on; the first response is cut after some chunks. */
  async reopened() {
    const { transport } = transportOf();
    Object.assign(proxy, { cuts: given.cut ? [given.cut] : [] });
    const stream = await transport.reconnectToStream({ chatId: given.reopen, startIndex: given.startIndex });
    return { chunks: await chunksOf(stream), requests: proxy.seen };
  },

  /** Two turns of a page that names no chat. */
  async unnamed() {
    const { transport } = transportOf();
    const chat = new Chat({ transport, onError: () => {} });
    await chat.sendMessage({ text: "one" });
    await chat.sendMessage({ text: "two" });
    return { status: chat.status, error: chat.error?.message, messages: chat.messages };
  },
};

process.stdout.write(JSON.stringify(await scenes[scene]()) + "\n", () => process.exit(0));
