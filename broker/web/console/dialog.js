/** Modal dialogs, and menus that open below their button. */

import { h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";

/** Open a dialog; resolves when it is closed. `content(close)` makes its content. */
export function openDialog(title, content, { className = "" } = {}) {
  return new Promise((resolve) => {
    const close = () => node.close();
    const node = h(
      "dialog",
      {
        class: `dialog ${className}`,
        "aria-label": title,
        onclose: finish,
        onclick: (event) => event.target === node && close(),
      },
      h("div", { class: "dialog-body" }, h("header", {}, h("h2", {}, title), closer(close)), content(close)),
    );
    document.body.append(node);
    node.showModal();

    function finish() {
      node.remove();
      resolve();
    }
  });
}

function closer(close) {
  return h(
    "button",
    { type: "button", class: "button quiet square", "aria-label": "Close", onclick: close },
    icon("cross"),
  );
}

/** A button with a menu of actions `[label, icon, act]`. */
export function menu(label, actions) {
  const button = h(
    "button",
    { type: "button", class: "button quiet square", "aria-label": label, "aria-expanded": "false" },
    icon("menu"),
  );
  const list = h(
    "div",
    { class: "menu-list", hidden: true },
    actions.map(([text, name, act]) =>
      h("button", { type: "button", class: "menu-item", onclick: () => (close(), act()) }, icon(name), text),
    ),
  );
  const node = h(
    "div",
    { class: "menu", onkeydown: (event) => event.key === "Escape" && !list.hidden && leave(event) },
    button,
    list,
  );
  button.addEventListener("click", () => (list.hidden ? open() : close()));
  return node;

  function open() {
    list.hidden = false;
    setAttribute(button, "aria-expanded", "true");
    document.addEventListener("pointerdown", outside);
    list.querySelector("button").focus();
  }

  function close() {
    list.hidden = true;
    setAttribute(button, "aria-expanded", "false");
    document.removeEventListener("pointerdown", outside);
  }

  function leave(event) {
    event.stopPropagation();
    close();
    button.focus();
  }

  function outside(event) {
    if (!node.contains(event.target)) close();
  }
}
