/** One session for all tabs of the console: a new tab gets it from one that has it, and all learn of newer tokens and of
 * a sign-out. Nothing is stored. */

const CHANNEL = "runcast:session";
const ANSWER_MS = 250;

export class Tabs {
  /** @param {{current: () => object | null, onChange: (credentials: object | null) => void}} session `current` is what
   * this tab has; `onChange` is called for what another tab has now (null: it signed out) */
  constructor({ current, onChange }) {
    this._current = current;
    this._onChange = onChange;
    this._channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(CHANNEL) : null;
    this._waiting = null;
    this._channel?.addEventListener("message", ({ data }) => this._heard(Object(data)));
  }

  /** What another tab has, or null. */
  ask() {
    if (this._channel === null) return Promise.resolve(null);
    return new Promise((resolve) => {
      const timer = setTimeout(() => this._waiting?.(null), ANSWER_MS);
      this._waiting = (credentials) => {
        clearTimeout(timer);
        this._waiting = null;
        resolve(credentials);
      };
      this._channel.postMessage({ type: "ask" });
    });
  }

  /** Tell the others what this tab has now; null: it signed out. */
  tell(credentials) {
    this._channel?.postMessage({ type: "have", credentials });
  }

  _heard({ type, credentials = null }) {
    const own = this._current();
    if (type === "ask" && own !== null) this._channel.postMessage({ type: "answer", credentials: own });
    else if (type === "answer") this._waiting?.(credentials);
    else if (type === "have") this._onChange(credentials);
  }
}
