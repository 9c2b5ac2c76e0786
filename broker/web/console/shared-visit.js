/** What somebody sees who has a link to one execution: that, and nothing else. */

import { RuncastClient } from "/client/index.js";
import { h } from "./dom.js";
import { ExecutionPage } from "./execution-page.js";
import { mark } from "./icons.js";
import { LiveRegion } from "./live-region.js";
import { Ticker } from "./ticker.js";

const SHARED = /^#\/shared\/([A-Za-z0-9_-]{1,64})\/(share_[A-Za-z0-9_-]{32})$/;

/** `{executionId, token}` of the address, or null. */
export function sharedIn(hash) {
  const match = SHARED.exec(hash);
  return match && { executionId: match[1], token: match[2] };
}

export class SharedVisit {
  constructor({ executionId, token }) {
    const liveRegion = new LiveRegion();
    this._ticker = new Ticker();
    const page = {
      client: new RuncastClient({ token }),
      mode: "fetch",
      ticker: this._ticker,
      announce: (text) => liveRegion.say(text),
      notify: (text) => liveRegion.say(text),
      open: () => {},
      back: () => {},
      go: () => {},
      isReadOnly: true,
      isShared: true,
    };
    this.view = new ExecutionPage(page, executionId);
    document.title = "Shared execution · Runcast";
    document.body.replaceChildren(
      h(
        "div",
        { class: "shared" },
        h(
          "header",
          { class: "bar" },
          h("span", { class: "brand" }, mark(), h("span", {}, "Runcast")),
          h("span", { class: "muted" }, "Somebody shared this execution with you. You can read it."),
        ),
        h("main", { class: "shared-stage" }, this.view.node),
        liveRegion.node,
      ),
    );
  }

  route() {}

  end() {
    this.view.end();
  }
}
