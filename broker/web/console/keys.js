/** The keyboard: single keys, wherever nobody is typing; and the page that lists them. */

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";

const HELP = [
  ["j", "k", "Down and up in the list"],
  ["Enter", "Open what is chosen"],
  ["Esc", "Back to the list"],
  ["/", "Filter: the story, or the list where it has the focus"],
  ["n", "New execution"],
  ["a", "Go to the open question"],
  ["p", "Pause and resume the page"],
  ["l", "Jump to the latest"],
  ["r", "Raw events, and back"],
  ["o", "Operations"],
  ["t", "Theme: system, light, dark"],
  ["?", "This list"],
];

/** `actions`: key → function; one that returns false leaves the key to the browser. */
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
