/** Keyboard shortcuts: single keys outside of text fields, and the dialog that lists them. */

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";

const HELP = [
  ["j", "k", "Down and up in the list"],
  ["Enter", "Open the selected execution"],
  ["Esc", "Back to the list"],
  ["/", "Filter the story, or the list if it has the focus"],
  ["n", "New execution"],
  ["a", "Go to the open input"],
  ["m", "Write a message to the agent"],
  ["p", "Freeze the view, or let it follow again"],
  ["l", "Jump to the latest"],
  ["v", "Show or hide the timeline"],
  ["r", "Switch between story and raw events"],
  ["o", "Operations"],
  ["t", "Theme: system, light, dark"],
  ["?", "Show this list"],
];

/** `actions`: key → function; if the function returns false, the browser handles the key. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (isTyping(event.target) && event.key !== "Escape") return;
    const act = actions[event.key];
    if (act && act(event) !== false) event.preventDefault();
  });
}

function isTyping(target) {
  return target.closest?.("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]") !== null;
}

export function showHelp() {
  return openDialog("Keyboard", () =>
    h(
      "dl",
      { class: "keys" },
      HELP.map((entry) =>
        h(
          "div",
          {},
          h(
            "dt",
            {},
            entry.slice(0, -1).map((key) => h("kbd", {}, key)),
          ),
          h("dd", {}, entry.at(-1)),
        ),
      ),
    ),
  );
}
