/** One session for all tabs of the console: a new tab gets it from one that has it, and all learn of newer tokens and of
 * a sign-out. Nothing is stored. Each tab holds a lock with its name, so that a new one knows who is to answer. */

const CHANNEL = "runcast:session";
const LOCKS = "runcast:tab:";
/** How long a new tab waits for the others: a busy one answers late, one that the browser has suspended not at all. */
const ANSWER_MS = 3_000;
/** The same, where it cannot know of any: without a secure context, or storage, there are no locks. */
const UNKNOWN_MS = 250;

export class Tabs {
  /** @param {{current: () => object | null, onChange: (credentials: object | null) => void}} session `current` is what
   * this tab has; `onChange` is called for what another tab has now (null: it signed out) */
  constructor({ current, onChange }) {
    this._current = current;
    this._onChange = onChange;
    this._channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(CHANNEL) : null;
    this._waiting = null;
    this._channel?.addEventListener("message", ({ data }) => this._heard(Object(data)));
    this._name = LOCKS + Math.random().toString(36).slice(2);
    this._isNamed = hold(this._name);
  }

  /** What another tab has, or null. */
  async ask() {
    if (this._channel === null) return null;
    const missing = (await this._isNamed) ? await others(this._name) : null;
    if (missing?.size === 0) return null;
    return await new Promise((resolve) => {
      const settle = (credentials) => {
        clearTimeout(timer);
        this._waiting = null;
        resolve(credentials);
      };
      const timer = setTimeout(settle, missing === null ? UNKNOWN_MS : ANSWER_MS, null);
      this._waiting = (credentials, from) => {
        missing?.delete(from);
        if (credentials !== null || missing?.size === 0) settle(credentials);
      };
      this._channel.postMessage({ type: "ask" });
    });
  }

  /** Tell the others what this tab has now; null: it signed out. */
  tell(credentials) {
    this._channel?.postMessage({ type: "have", credentials });
  }

  _heard({ type, credentials = null, from }) {
    if (type === "ask") this._channel.postMessage({ type: "answer", credentials: this._current(), from: this._name });
    else if (type === "answer") this._waiting?.(credentials, from);
    else if (type === "have") this._onChange(credentials);
  }
}

/** Hold a lock until the page is left; whether the browser has locks. */
function hold(name) {
  return new Promise((resolve) => {
    const isHeld = () => {
      resolve(true);
      return new Promise(() => {});
    };
    if (navigator.locks) navigator.locks.request(name, isHeld).catch(() => resolve(false));
    else resolve(false);
  });
}

/** The names of the other tabs; null if they are not told. */
async function others(name) {
  try {
    const { held } = await navigator.locks.query();
    return new Set(held.map((lock) => lock.name).filter((each) => each.startsWith(LOCKS) && each !== name));
  } catch {
    return null;
  }
}
