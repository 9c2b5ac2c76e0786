// A React page with `useChat`, in a DOM, whose user chooses files: `node ai_sdk_files.mjs <json of what it needs>` prints
// what the page has in the end. The SDK reads the files by itself (`convertFileListToFileUIParts`).
import { JSDOM } from "jsdom";

const dom = new JSDOM("<div id=root></div>", { url: "http://localhost/", pretendToBeVisual: true });
const { window } = dom;
Object.assign(globalThis, { window, document: window.document, FileList: window.FileList, FileReader: window.FileReader });
globalThis.navigator ??= window.navigator; // which newer Nodes have themselves
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import("@ai-sdk/react");
const { DefaultChatTransport } = await import("ai7");

const given = JSON.parse(process.argv[2]);
const WAIT_MS = 20_000;
const transport = new DefaultChatTransport({
  api: `${given.edges[0]}/api/agent/chat`,
  headers: { Authorization: `Bearer ${given.token}` },
  body: { agent: given.agent },
});

/** What an `<input type=file>` has when somebody chose a file there. */
function chosen(...files) {
  const places = Object.fromEntries(files.map((file, at) => [at, { value: file, enumerable: true }]));
  return Object.create(window.FileList.prototype, { ...places, length: { value: files.length } });
}

let chat, look = () => {};
function Page() {
  chat = useChat({ id: given.chatId, transport });
  queueMicrotask(() => look());
  return null;
}
createRoot(document.getElementById("root")).render(createElement(Page));
const until = (condition) =>
  new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`not in time: ${condition}`)), WAIT_MS);
    look = () => chat && condition(chat) && (clearTimeout(timer), done(chat));
    look();
  });

const { sendMessage } = await until(({ status }) => status === "ready");
const bytes = given.bytes ? Buffer.from(given.bytes, "base64") : Buffer.alloc(given.size);
const file = new window.File([new Uint8Array(bytes)], given.name, { type: given.mediaType });
sendMessage({ text: given.text, files: chosen(file) });
const { messages, status, error } = await until((it) => it.status === "error" || (it.status === "ready" && it.messages.length === 2));
process.stdout.write(JSON.stringify({ messages, status, error: error?.message }) + "\n", () => process.exit(0));
