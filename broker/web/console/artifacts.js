/** The content of artifacts: links, pictures, texts to show or save, values. */

import { h, setAttribute } from "./dom.js";
import { plural } from "./format.js";
import { icon } from "./icons.js";
import { valueView } from "./json-view.js";
import { MarkdownView } from "./markdown-view.js";
import { safeUrl } from "./markdown.js";
import { block, visible } from "./text.js";

const MAX_ARTIFACT = 4_000;
/** A picture as a data URL. SVG is not allowed: it is a document that may contain scripts. */
const PICTURE = /^data:image\/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*$/;

/** Nodes for the URL, the text and the value of an artifact. */
export function artifactContent(item) {
  const nodes = [];
  if (item.url) nodes.push(PICTURE.test(item.url) ? picture(item) : artifactLink(item.url));
  if (item.text !== null) nodes.push(artifactText(item));
  if (item.data !== undefined && item.data !== null) nodes.push(valueView(item.data));
  return nodes;
}

function picture(item) {
  return h("img", { class: "artifact-picture", src: item.url, alt: visible(String(item.name ?? item.mediaType)) });
}

function artifactLink(address) {
  const url = safeUrl(address);
  if (!url) return block(address);
  return h(
    "p",
    {},
    h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", class: "said" }, visible(url.href)),
  );
}

function artifactText(item) {
  const detail = h("div", { class: "artifact-text" });
  const open = () => {
    const text = item.text;
    const isMarkdown = item.mediaType === "text/markdown";
    const prose = new MarkdownView();
    if (isMarkdown) prose.update(text.replace(/^<!--[^]{0,500}?-->\s*/, ""));
    detail.replaceChildren(isMarkdown ? prose.node : block(text, { tag: "pre", most: MAX_ARTIFACT }));
  };
  const size = plural(item.text.trimEnd().split("\n").length, "line");
  const button = h(
    "button",
    { type: "button", class: "button small", "aria-expanded": "false" },
    icon("document"),
    `Show ${size}`,
  );
  const save = h(
    "button",
    { type: "button", class: "button small quiet", onclick: () => download(item) },
    icon("download"),
    "Save",
  );
  button.addEventListener("click", () => {
    const isOpen = detail.hasChildNodes();
    if (isOpen) detail.replaceChildren();
    else open();
    setAttribute(button, "aria-expanded", String(!isOpen));
    button.lastChild.data = isOpen ? `Show ${size}` : `Hide`;
  });
  return h("div", {}, h("div", { class: "artifact-actions" }, button, save), detail);
}

/** Saved as plain bytes: the media type is the agent's and must not decide what a browser does with the file. */
function download(item) {
  const name =
    String(item.name ?? item.artifactId)
      .split(/[\\/]/)
      .at(-1)
      .replace(/[^\w.-]/g, "_") || "artifact";
  saveAs(new Blob([item.text], { type: "application/octet-stream" }), name);
}

export function saveAs(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
