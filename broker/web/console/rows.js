/** The rows of the story: a view for each kind of item. */

import { artifactContent } from "./artifacts.js";
import { h, setAttribute, setText } from "./dom.js";
import { STATES, duration, exactClock, offset, plural, whole } from "./format.js";
import { icon } from "./icons.js";
import { summary, summaryNodes, valueView } from "./json-view.js";
import { MarkdownView } from "./markdown-view.js";
import { TeamRow } from "./specialists.js";
import { Growing, block, line, isolated, visible } from "./text.js";
import { ToolRow } from "./tool-row.js";

/**
 * Views for items. `context`: `{clock, startedAt(), isEnded(), isNews(item), toggleAttempt(attempt), isOpen(attempt),
 * toTop(), comparePath(one, other), stack()}`; `isNews`: it came while the page was open; `toTop` shows the input and the
 * result; `comparePath`: the address that compares two attempts, or null; `stack()` resolves to the stack trace, or null
 * if there is none or the token has no access to it.
 */
export function rowView(item, context) {
  const inner = (VIEWS[item.kind] ?? unknown)(item, context);
  const elapsed = offset(item.at - (context.startedAt() ?? item.at));
  const time = h("time", { class: `row-time ${item.isNewTime ? "" : "is-same"}`, title: exactClock(item.at) }, elapsed);
  const node = h(
    "li",
    { class: `row row-${item.kind}`, "data-seq": item.seq },
    inner.icon,
    h("div", { class: "row-body" }, inner.node),
    time,
  );
  setVoid(node, item);
  return {
    node,
    update(changed) {
      setVoid(node, changed);
      inner.update?.(changed);
    },
    tick: () => inner.tick?.(),
  };
}

function setVoid(node, item) {
  node.classList.toggle("is-void", item.isVoid);
}

const rowIcon = (name, tone = "") => h("span", { class: `row-icon ${tone}` }, icon(name));

/** A child's state in words; of one that its parent's log does not see end, what becomes of it. */
const childState = (state) =>
  ({ interrupted: "Ends with this execution", detached: "Goes on" })[state] ?? STATES[state] ?? state;

function childLink({ executionId, agent, key }) {
  const name = [agent ?? executionId, key].filter(Boolean).join(" · ");
  return h("a", { class: "child-link", href: `#/x/${executionId}` }, h("bdi", {}, line(name, 100)));
}

/** A child of a child, with its own. */
function childNode({ executionId, agent, key, state, children }) {
  const mark = h("span", { class: "child-state", "data-state": state }, childState(state));
  const below = children.length ? h("ul", { class: "children" }, children.map(childNode)) : null;
  return h("li", {}, childLink({ executionId, agent, key }), " ", mark, below);
}

const VIEWS = {
  mark(item) {
    const node = h(
      "p",
      { class: "row-mark-line" },
      item.title,
      item.detail && " ",
      item.detail && isolated(line(item.detail, 120)),
    );
    return { icon: rowIcon("play"), node };
  },

  plan(item) {
    const phases = item.phases.map((phase) => line(phase.name, 60)).join(" · ");
    return {
      icon: rowIcon("flag"),
      node: h(
        "div",
        {},
        block(item.goal, { className: "plan-goal" }),
        phases && h("p", { class: "plan-phases said" }, phases),
      ),
    };
  },

  phase(item) {
    const time = h("span", { class: "phase-time numbers" });
    const glyph = h("span", { class: "row-icon" });
    const view = {
      icon: glyph,
      node: h("h2", { class: "phase-name" }, h("bdi", {}, line(item.name, 120)), time),
      update(changed) {
        setText(time, changed.status === "complete" ? duration(changed.duration) : "");
        const isDone = changed.status === "complete";
        const isBusy = changed.status === "running" && !changed.isVoid;
        glyph.replaceChildren(icon(isDone ? "checkCircle" : isBusy ? "target" : "dash"));
        glyph.classList.toggle("good", isDone);
        glyph.classList.toggle("busy", isBusy);
      },
    };
    view.update(item);
    return view;
  },

  thought(item) {
    const growing = new Growing("thought");
    const view = { icon: rowIcon("thought"), node: growing.node, update: (changed) => growing.update(changed.text) };
    if (item.text.length > 6_000) return { icon: rowIcon("thought"), node: block(item.text, { className: "thought" }) };
    view.update(item);
    return view;
  },

  text(item) {
    const prose = new MarkdownView();
    prose.update(item.text);
    return { icon: rowIcon("message"), node: prose.node, update: (changed) => prose.update(changed.text) };
  },

  tool(item, { clock }) {
    const row = new ToolRow(item, clock);
    return { icon: null, node: row.node, update: (changed) => row.update(changed), tick: () => row.tick() };
  },

  team(item, { clock }) {
    const row = new TeamRow(item, clock);
    return { icon: rowIcon("team"), node: row.node, update: (changed) => row.update(changed), tick: () => row.tick() };
  },

  result(item) {
    const title = item.specialist ? ["Partial result of ", isolated(line(item.specialist, 60))] : "Partial result";
    return {
      icon: rowIcon("table"),
      node: h("div", { class: "result" }, h("h3", { class: "row-title" }, title), valueView(item.value)),
    };
  },

  artifact(item) {
    const content = h("div", { class: "artifact-content" });
    const view = {
      icon: rowIcon("document"),
      node: h(
        "div",
        { class: "artifact" },
        h(
          "h3",
          { class: "row-title" },
          isolated(line(item.name ?? item.artifactId, 200)),
          h("span", { class: "muted mono" }, isolated(line(item.mediaType, 60))),
        ),
        content,
      ),
      update: (changed) => content.replaceChildren(...artifactContent(changed)),
    };
    view.update(item);
    return view;
  },

  input(item, { isEnded }) {
    const answer = h("p", { class: "answer" });
    const glyph = rowIcon("question");
    const prose = new MarkdownView();
    prose.update(item.prompt);
    const prompt = h("div", { class: "prompt" }, prose.node);
    const view = {
      icon: glyph,
      node: h("div", { class: "asked" }, prompt, answer),
      update(changed) {
        const isOpen = !changed.answer && !changed.isVoid && !isEnded();
        glyph.classList.toggle("waiting", isOpen);
        prompt.hidden = isOpen; // the card of the open input shows it
        answer.replaceChildren(...answerNodes(changed, isOpen));
      },
    };
    view.update(item);
    return view;
  },

  said(item) {
    const state = h("p", { class: "answer" });
    const glyph = rowIcon("message", item.mode === "interrupt" ? "warn" : "");
    const view = {
      icon: glyph,
      node: h(
        "div",
        { class: "asked" },
        h("h3", { class: "row-title" }, isolated(line(item.by, 120)), item.mode === "interrupt" && " interrupts"),
        item.text === null ? valueView(item.value) : block(item.text, { className: "prompt" }),
        state,
      ),
      update: (changed) => setText(state, SAID[changed.state]),
    };
    view.update(item);
    return view;
  },

  child(item) {
    const mark = h("span", { class: "child-state" });
    const said = h("p", { class: "said muted", dir: "auto" });
    const below = h("ul", { class: "children", hidden: true });
    const glyph = rowIcon("team");
    const view = {
      icon: glyph,
      node: h(
        "div",
        { class: "child", "data-child": item.executionId },
        h("h3", { class: "row-title" }, childLink({ ...item, key: item.childKey }), mark),
        item.task && h("p", { class: "said", dir: "auto" }, visible(line(item.task, 400))),
        said,
        below,
      ),
      update(changed) {
        const tokens = changed.usage ? ` · ${whole(changed.usage.totalTokens)} tokens` : "";
        const state = changed.endedAt ? changed.status : (changed.live ?? changed.status);
        setText(mark, `${childState(state)}${changed.detached ? ", detached" : ""}${tokens}`);
        mark.dataset.state = state;
        glyph.classList.toggle("busy", state === "running");
        glyph.classList.toggle("waiting", state === "waiting_input");
        glyph.classList.toggle("good", state === "completed");
        said.replaceChildren(...(changed.summary ? [visible(line(changed.summary, 600))] : []));
        below.hidden = !changed.below?.length;
        below.replaceChildren(...(changed.below ?? []).map(childNode));
      },
    };
    view.update(item);
    return view;
  },

  note(item) {
    const name = { bad: "warning", warn: "clock", plain: "info" }[item.tone];
    const shown = [item.label && h("strong", {}, `${item.label}: `), visible(line(item.title, 1_000))];
    const detail = item.detail && block(item.detail, { className: "muted", most: 600 });
    return {
      icon: rowIcon(name, item.tone),
      node: h("div", { class: `note ${item.tone}` }, h("p", { class: "said", dir: "auto" }, shown), detail),
    };
  },

  custom(item) {
    const detail = h("div", { class: "call-detail", hidden: true });
    const button = h(
      "button",
      { type: "button", class: "call-line", "aria-expanded": "false" },
      h("code", { class: "call-name" }, h("bdi", {}, line(item.name, 80))),
      h("span", { class: "call-params" }, summaryNodes(item.value)),
      icon("chevron", "call-chevron"),
    );
    button.addEventListener("click", () => {
      detail.hidden = !detail.hidden;
      setAttribute(button, "aria-expanded", String(!detail.hidden));
      detail.replaceChildren(...(detail.hidden ? [] : [valueView(item.value)]));
    });
    return { icon: null, node: h("div", { class: "call" }, rowIcon("spark"), button, detail) };
  },

  attempt(item, { toggleAttempt, isOpen, comparePath }) {
    const button = h("button", { type: "button", class: "link-button" });
    const show = () => setText(button, `${isOpen(item.lost) ? "Hide" : "Show"} its ${plural(item.count, "step")}`);
    button.addEventListener("click", () => {
      toggleAttempt(item.lost);
      show();
    });
    show();
    const text = h(
      "p",
      {},
      h("strong", {}, `Attempt ${item.lost} was lost.`),
      ` Its results are void; attempt ${item.next} starts again.`,
    );
    const path = comparePath(item.lost, item.next);
    const link = path && h("a", { class: "link", href: path }, `Compare it with attempt ${item.next}`);
    const actions = h("p", {}, item.count > 0 && button, item.count > 0 && path && " · ", link);
    return { icon: rowIcon("history", "warn"), node: h("div", { class: "note warn" }, text, actions) };
  },

  end(item, context) {
    return { icon: endIcon(item.state), node: ENDS[item.state](item, context) };
  },
};

/** State of a person's message → what is said of it. */
const SAID = {
  queued: "Waits for the agent.",
  taken: "The agent has taken it.",
  withdrawn: "Withdrawn.",
  ended: "The agent ended before it took it.",
};

const unknown = (item) => ({ icon: rowIcon("info"), node: h("p", {}, line(item.kind, 60)) });

// --- inputs -------------------------------------------------------------------------------------------------------

function answerNodes({ answer, form }, isOpen) {
  if (!answer) return [isOpen ? "Waiting for an answer." : "Not answered."];
  if (answer.by === "system:expired") return [icon("clock"), "Not answered in time."];
  const value =
    form === "approval" && typeof answer.value === "boolean" ? (answer.value ? "Approved" : "Declined") : null;
  if (answer.declined) return [icon("cross"), "Declined by ", isolated(line(answer.by, 120))];
  const glyph = icon(answer.value === false ? "cross" : "check");
  return value
    ? [glyph, `${value} by `, isolated(line(answer.by, 120))]
    : [
        glyph,
        isolated(line(answer.by, 120)),
        " answered: ",
        h("strong", {}, isolated(summary(answer.value, 300) || "nothing")),
      ];
}

// --- the end ---------------------------------------------------------------------------------------------------------

const endIcon = (state) =>
  ({ completed: rowIcon("checkCircle", "good"), failed: rowIcon("crossCircle", "bad"), cancelled: rowIcon("dash") })[
    state
  ];

const ENDS = {
  completed(item, { isNews, toTop }) {
    const hasResult = item.result !== null && item.result !== undefined;
    const above = () => h("button", { type: "button", class: "link-button", onclick: toTop }, "Show the result");
    return h(
      "div",
      { class: "end good" },
      endTitle(`Completed in ${duration(item.duration)}`),
      hasResult && (isNews(item) ? valueView(item.result) : above()),
    );
  },

  failed(item, { stack }) {
    const code = item.code && h("code", { class: "code-tag" }, isolated(line(item.code, 80)));
    return h(
      "div",
      { class: "end bad" },
      endTitle(STATES.failed, code),
      block(item.error, { className: "error-text" }),
      stackView(stack),
    );
  },

  cancelled(item) {
    const by = item.by ? [" by ", isolated(line(item.by, 120))] : "";
    return h(
      "div",
      { class: "end" },
      endTitle(["Cancelled", by]),
      item.reason && block(item.reason, { className: "muted" }),
    );
  },
};

function endTitle(text, extra = null) {
  return h("h2", { class: "end-title" }, text, extra);
}

/** The stack trace is in the record, not in the log: it is loaded on demand. */
function stackView(stack) {
  const button = h("button", { type: "button", class: "link-button" }, "Show the stack trace");
  const frame = h("div", {}, button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    const found = await stack().catch((error) => `The stack trace could not be loaded: ${error.message}`);
    const text = found ?? "There is no stack trace, or this token has no access to it (scope executions:debug).";
    frame.replaceChildren(h("pre", { class: "stack said", tabindex: "0" }, visible(text)));
  });
  return frame;
}
