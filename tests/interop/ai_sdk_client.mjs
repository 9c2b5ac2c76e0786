// A page with a chat, made of the SDK's own classes: `node ai_sdk_client.mjs <ai5|ai6|ai7> <scene> <json of what it needs>`.
// Prints what the page has in the end, as JSON. The scenes are at the end.
import { chatOf } from "./ai_sdk_chat.mjs";

const [sdkName, scene, argument] = process.argv.slice(2);
const sdk = await import(sdkName);
const given = JSON.parse(argument);
const WAIT_MS = 20_000;

class Chat extends chatOf(sdk) {
  /** Wait until this is so for the newest message. */
  async until(condition) {
    const deadline = new Promise((_, fail) => setTimeout(() => fail(new Error(`not in time: ${condition}`)), WAIT_MS).unref());
    while (!condition(this.lastMessage, this)) await Promise.race([this.next(), deadline]);
  }
}

/** A chat at one of the edges; `parts` are what its page was told of by `onData`. */
function page({ edge = 0, id = given.chatId, messages, options = {}, ...transport } = {}) {
  const told = [];
  const chat = new Chat({
    id,
    messages,
    onData: (part) => told.push(part),
    onError: () => {},
    ...options,
    transport: new sdk.DefaultChatTransport({
      api: `${given.edges[edge]}/api/agent/chat`,
      headers: { Authorization: `Bearer ${given.token}` },
      body: { agent: given.agent },
      ...transport,
    }),
  });
  chat.told = told;
  return chat;
}

async function post(path, body, edge = 1) {
  const response = await fetch(`${given.edges[edge]}${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${given.token}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

const question = (message) => message?.parts?.find((part) => part.type === "data-input");
const isAsked = (message) => question(message)?.data.state === "required";

function answer(chat, value) {
  const { executionId, inputId } = question(chat.lastMessage).data;
  return post(`/api/agent/executions/${executionId}/input`, { inputId, value });
}

const approval = (message) => message?.parts?.find((part) => part.state === "approval-requested");

/** What the page shows. */
const shown = (chat) => ({ status: chat.status, error: chat.error?.message, messages: chat.messages });

const scenes = {
  /** One question, and its whole answer. */
  async turn() {
    const chat = page();
    await chat.sendMessage({ text: given.text });
    return { ...shown(chat), told: chat.told };
  },

  /** A recorded response, as it was written. */
  async recorded() {
    const body = () => new Response(given.body, { headers: { "content-type": "text/event-stream" } });
    const chat = page({ fetch: async () => body() });
    await chat.sendMessage({ text: "t" });
    return shown(chat);
  },

  /** The agent asks; the page answers, over another edge, while its stream stays open. */
  async approval() {
    const chat = page();
    const turn = chat.sendMessage({ text: given.text });
    await chat.until(isAsked);
    const asked = structuredClone(chat.lastMessage);
    const answered = await answer(chat, true);
    await turn;
    return { ...shown(chat), asked, answered };
  },

  /** The page is left in the middle, and opened again at another edge. */
  async resume() {
    const left = page();
    const turn = left.sendMessage({ text: given.text });
    await left.until(isAsked);
    await left.stop();
    await turn;
    const opened = page({ edge: 1, messages: left.messages.slice(0, 1) });
    const resumed = opened.resumeStream();
    await opened.until(isAsked);
    await answer(opened, true);
    await resumed;
    await opened.resumeStream();
    return { ...shown(opened), before: left.messages };
  },

  /** The connection breaks in the middle; the same page resumes. */
  async reconnect() {
    const controller = new AbortController();
    const chat = page({
      fetch: async (url, init) => {
        const response = await fetch(url, { ...init, signal: init.method === "POST" ? controller.signal : init.signal });
        if (init.method !== "POST") return response;
        const body = response.body.pipeThrough(
          new TransformStream({
            start(control) {
              controller.signal.addEventListener("abort", () => control.error(new TypeError("network error")));
            },
          }),
        );
        return new Response(body, response);
      },
    });
    const turn = chat.sendMessage({ text: given.text });
    await chat.until(isAsked);
    controller.abort();
    await turn;
    const broken = chat.status;
    const resumed = chat.resumeStream();
    await chat.until((message, { status }) => isAsked(message) && status === "streaming");
    await answer(chat, true);
    await resumed;
    return { ...shown(chat), broken };
  },

  /** Nothing runs in this chat. */
  async nothing() {
    const chat = page();
    await chat.resumeStream();
    return shown(chat);
  },

  /** The page stops the work. */
  async stop() {
    const chat = page();
    const turn = chat.sendMessage({ text: given.text });
    await chat.until((message) => message?.parts?.some((part) => part.type === "reasoning"));
    const stopped = await post(`/api/agent/chat/${encodeURIComponent(given.chatId)}/stop`, { reason: "enough" });
    await turn;
    return { ...shown(chat), stopped };
  },

  /** Two turns, and the second answer once more. */
  async conversation() {
    const options = given.lastOnly
      ? { prepareSendMessagesRequest: ({ id, messages, trigger, body }) => ({ body: { ...body, id, message: messages.at(-1), trigger } }) }
      : {};
    const chat = page(options);
    await chat.sendMessage({ text: "one" });
    await chat.sendMessage({ text: "two" });
    const twice = chat.messages;
    await chat.regenerate();
    return { ...shown(chat), twice };
  },

  /** A page that is opened again: what the edge has of the chat, and a question that goes on from there. */
  async reopened() {
    const left = page();
    await left.sendMessage({ text: given.text, files: given.files });
    const response = await fetch(`${given.edges[1]}/api/agent/chat/${encodeURIComponent(given.chatId)}`, {
      headers: { Authorization: `Bearer ${given.token}` },
    });
    const { messages } = await response.json();
    const valid = await sdk.validateUIMessages({ messages });
    const opened = page({ messages, body: { agent: "rememberer" } });
    await opened.resumeStream();
    const shownFirst = opened.messages;
    await opened.sendMessage({ text: "and?" });
    return { ...shown(opened), left: left.messages, opened: shownFirst, valid };
  },

  /** The agent asks; the page answers as it answers a tool of the SDK, in the page that asked or one that was opened again. */
  async toolApproval() {
    const options = { sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithApprovalResponses };
    const transport = { body: { agent: given.agent, toolApprovals: true } };
    let chat = page({ ...transport, options });
    await chat.sendMessage({ text: given.text });
    if (given.again) {
      chat = page({ ...transport, edge: 1, messages: chat.messages.slice(0, 1), options });
      await chat.resumeStream();
    }
    const asked = structuredClone(chat.messages);
    const waiting = chat.status;
    for (const approved of given.approved) {
      await chat.until((message, { status }) => status === "ready" && approval(message));
      await chat.addToolApprovalResponse({ id: approval(chat.lastMessage).approval.id, approved });
      await chat.until((message, { status }) => status !== "ready");
      await chat.until((message, { status }) => status !== "streaming" && status !== "submitted");
    }
    const response = await fetch(`${given.edges[1]}/api/agent/chat/${encodeURIComponent(given.chatId)}`, {
      headers: { Authorization: `Bearer ${given.token}` },
    });
    const kept = (await response.json()).messages;
    return { ...shown(chat), asked, waiting, kept, valid: await sdk.validateUIMessages({ messages: kept }) };
  },

  /** Files with a question, and a question about them. */
  async files() {
    const chat = page();
    await chat.sendMessage({ text: given.text, files: given.files });
    const first = chat.lastMessage;
    await chat.sendMessage({ files: given.files });
    return { ...shown(chat), first };
  },

  /** The same request twice, as after an answer that was lost on the way. */
  async repeat() {
    const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: given.text }] }];
    const transport = page().transport;
    const seen = [];
    for (const _ of [1, 2]) {
      const stream = await transport.sendMessages({ chatId: given.chatId, messages, trigger: "submit-message" });
      let last;
      for await (last of sdk.readUIMessageStream({ stream }));
      seen.push(last);
    }
    return { seen };
  },

  /** Two messages to the agent at work, with or without leaving the stream of the answer before; the last one twice. */
  async steer() {
    const bodies = [];
    const chat = page({ fetch: (url, init) => (bodies.push(init.body), fetch(url, init)) });
    const turns = [chat.sendMessage({ text: given.text })];
    const leave = async () => given.stops && (await chat.stop(), await turns.at(-1));
    await chat.until((message) => message?.parts?.some((part) => part.type === "data-status"));
    await leave();
    turns.push(chat.sendMessage({ text: "shorter" }));
    const says = (text) => chat.until((message) => message?.parts?.some((part) => part.text?.includes(text)));
    await says("Heard shorter.");
    await leave();
    turns.push(chat.sendMessage({ text: "stop" }));
    await Promise.all(turns);
    const headers = { Authorization: `Bearer ${given.token}`, "Content-Type": "application/json" };
    const again = await fetch(`${given.edges[1]}/api/agent/chat`, { method: "POST", headers, body: bodies.at(-1) });
    const counted = `${given.edges[0]}/api/agent/chat/${again.headers.get("x-workflow-run-id")}/stream?startIndex=3`;
    const rest = await fetch(counted, { headers });
    return { ...shown(chat), again: await again.text(), rest: await rest.text() };
  },

  /** Messages to the agent at work before it asks for an approval and while it waits for it, in a page that answers
   * approvals as the SDK's own. */
  async steerAndApprove() {
    const options = { sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithApprovalResponses };
    const chat = page({ body: { agent: given.agent, toolApprovals: true }, options });
    const isAsked = (message, { status }) => status === "ready" && approval(message);
    const first = chat.sendMessage({ text: given.text });
    await chat.until((message) => message?.parts?.some((part) => part.type === "data-status"));
    await chat.stop();
    await first;
    await chat.sendMessage({ text: "shorter" });
    await chat.until(isAsked);
    const before = structuredClone(chat.messages);
    await chat.sendMessage({ text: "faster" });
    await chat.until(isAsked);
    await chat.addToolApprovalResponse({ id: approval(chat.lastMessage).approval.id, approved: true });
    await chat.until((message, { status }) => status === "ready" && message.metadata.result);
    return { ...shown(chat), before };
  },

  /** A message that is not for the agent at work. */
  async unsteered() {
    const chat = page();
    chat.sendMessage({ text: given.text });
    await chat.until((message) => message?.parts?.some((part) => part.type === "data-status"));
    chat.sendMessage({ text: "another" }, { body: { steer: false } });
    await chat.until((message, { messages }) => message.parts.some((part) => part.type === "data-status") && messages.length === 4);
    return shown(chat);
  },

  /** Watches a chat whose events the test writes itself: says when it is in, and what it has in the end. */
  async watch() {
    const chat = page({ messages: given.messages });
    const work = given.resume ? chat.resumeStream() : chat.sendMessage({ text: given.text });
    await chat.until((message) => message?.role === "assistant");
    process.stdout.write(JSON.stringify(chat.lastMessage) + "\n");
    await work;
    return { ...shown(chat), told: chat.told };
  },
};

process.stdout.write(JSON.stringify(await scenes[scene]()) + "\n", () => process.exit(0));
