// The examples for pages, in a DOM: `node in_a_page.mjs <edge and token as JSON>` prints what they show.
import { readFileSync, writeFileSync } from "node:fs";
import { JSDOM } from "jsdom";
import ts from "typescript";

const WAIT_MS = 20_000;
const dom = new JSDOM("<main id=task></main><main id=chat></main>", { url: "http://localhost/", pretendToBeVisual: true });
Object.assign(globalThis, { window: dom.window, document: dom.window.document });
globalThis.navigator ??= dom.window.navigator;
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { edge, token } = JSON.parse(process.argv[2]);

/** A module of an example with JSX. */
async function example(name) {
  const made = ts.transpileModule(readFileSync(`${name}.jsx`, "utf8"), {
    compilerOptions: { jsx: ts.JsxEmit.ReactJSX, module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  writeFileSync(`${name}.made.mjs`, made.outputText);
  return import(`${process.cwd()}/${name}.made.mjs`);
}

const element = (id) => document.getElementById(id);
async function until(id, text) {
  const end = Date.now() + WAIT_MS;
  while (!element(id).textContent.includes(text)) {
    if (Date.now() > end) throw new Error(`${id}: no ${text} in ${element(id).innerHTML}`);
    await new Promise((later) => setTimeout(later, 20));
  }
}
const click = (id, text) => [...element(id).querySelectorAll("button")].find((each) => each.textContent.includes(text)).click();

const { App } = await example("task");
createRoot(element("task")).render(createElement(App, { baseUrl: edge, token }));
await until("task", "Start");
click("task", "Start");
await until("task", "Publish it? Yes");
click("task", "Publish it? Yes");
await until("task", "Where? Yes");
click("task", "Cancel");
await until("task", "cancelled");

const { Chat } = await example("chat");
createRoot(element("chat")).render(createElement(Chat, { edge, token, chatId: `chat-${Date.now()}` }));
await until("chat", "Ask");
click("chat", "Ask");
await until("chat", "assistant: March went well.");

const shown = Object.fromEntries(["task", "chat"].map((id) => [id, element(id).textContent]));
process.stdout.write(JSON.stringify(shown) + "\n", () => process.exit(0));
