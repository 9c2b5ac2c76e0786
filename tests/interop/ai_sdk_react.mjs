// A React page with `useChat`, in a DOM: it is left in the middle of an answer, and opened again at another edge, where
// the hook resumes by itself. `node ai_sdk_react.mjs <json of what it needs>` prints what the page shows in the end.
import { JSDOM } from "jsdom";

const dom = new JSDOM("<div id=root></div>", { url: "http://localhost/", pretendToBeVisual: true });
Object.assign(globalThis, { window: dom.window, document: dom.window.document });
globalThis.navigator ??= dom.window.navigator; // which newer Nodes have themselves
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import("@ai-sdk/react");
const { DefaultChatTransport } = await import("ai7");

const given = JSON.parse(process.argv[2]);
const headers = { Authorization: `Bearer ${given.token}` };
const WAIT_MS = 20_000;

/** Open a page; `until` waits until what its hook returns is so. */
function open(edge, options) {
  const element = document.createElement("div");
  document.getElementById("root").append(element);
  const transport = new DefaultChatTransport({ api: `${given.edges[edge]}/api/agent/chat`, headers, body: { agent: given.agent } });
  let chat, look = () => {};
  function Page() {
    chat = useChat({ id: given.chatId, transport, ...options });
    queueMicrotask(() => look());
    const texts = chat.messages.flatMap(({ role, parts }) => parts.filter(({ type }) => type === "text").map(({ text }) => `${role}: ${text}`));
    return createElement("ul", null, texts.map((text, at) => createElement("li", { key: at }, text)));
  }
  const root = createRoot(element);
  root.render(createElement(Page));
  const until = (condition) =>
    new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`not in time: ${condition}`)), WAIT_MS);
      look = () => chat && condition(chat) && (clearTimeout(timer), done(chat));
      look();
    });
  const items = () => [...element.querySelectorAll("li")].map((item) => item.textContent);
  return { until, items, close: () => root.unmount() };
}

const question = ({ messages }) => messages.at(-1)?.parts.find((part) => part.type === "data-input");

const left = open(0);
const { sendMessage } = await left.until((chat) => chat.status === "ready");
sendMessage({ text: given.text });
const before = await left.until(question);
left.close();

const opened = open(1, { resume: true, messages: before.messages.slice(0, 1) });
const asked = await opened.until(question);
const { executionId, inputId } = question(asked).data;
await fetch(`${given.edges[0]}/api/agent/executions/${executionId}/input`, {
  method: "POST",
  headers: { ...headers, "Content-Type": "application/json" },
  body: JSON.stringify({ inputId, value: true }),
});
const { messages, status } = await opened.until((chat) => chat.status === "ready" && chat.messages.length === 2);
process.stdout.write(JSON.stringify({ messages, status, items: opened.items() }) + "\n", () => process.exit(0));
