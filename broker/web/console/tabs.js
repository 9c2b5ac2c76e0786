/** One session for all tabs of the console: a new tab gets it from one that has it, and all learn of newer tokens and of
 * a sign-out. Nothing is stored. Each tab holds a shared lock, so that a new one knows how many others there are. */

const NAME = "runcast:session";
/** How long a new tab waits for the others, of which a busy one answers late. */
const ANSWER_MS = 5_000;
/** The same, where it cannot know of any: without a secure context there are no locks. */
const UNKNOWN_MS = 250;

export class Tabs {
  /** @param {{current: () => object | null, onChange: (credentials: object | null) => void}} session `current` is what
   * this tab has; `onChange` is called for what another tab has now (null: it signed out) */
  constructor({ current, onChange }) {
    this._current = current;
    this._onChange = onChange;
    this._channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : null;
    this._waiting = null;
    this._channel?.addEventListener("message", ({ data }) => this._heard(Object(data)));
    this._isCounted = holdForGood();
  }

  /** What another tab has, or null. */
  async ask() {
    if (this._channel === null) return null;
    await this._isCounted;
    const others = await countOthers();
    if (others === 0) return null;
    const id = Math.random();
    return await new Promise((resolve) => {
      let missing = others;
      const settle = (credentials) => {
        clearTimeout(timer);
        this._waiting = null;
        resolve(credentials);
      };
      const timer = setTimeout(settle, others === Infinity ? UNKNOWN_MS : ANSWER_MS, null);
      this._waiting = (answer) => {
        if (answer.to !== id) return;
        missing -= 1;
        if (answer.credentials !== null || missing === 0) settle(answer.credentials);
      };
      this._channel.postMessage({ type: "ask", id });
    });
  }

  /** Tell the others what this tab has now; null: it signed out. */
  tell(credentials) {
    this._channel?.postMessage({ type: "have", credentials });
  }

  _heard(message) {
    const { type, credentials = null } = message;
    if (type === "ask") this._channel.postMessage({ type: "answer", to: message.id, credentials: this._current() });
    else if (type === "answer") this._waiting?.(message);
    else if (type === "have") this._onChange(credentials);
  }
}

/** Hold the lock of a tab until the page is left; resolves when it is held. */
function holdForGood() {
  if (!navigator.locks) return Promise.resolve();
  return new Promise((isHeld) => {
    void navigator.locks.request(NAME, { mode: "shared" }, () => {
      isHeld();
      return new Promise(() => {});
    });
  });
}

/** How many other tabs there are; where that cannot be known, Infinity. */
async function countOthers() {
  if (!navigator.locks) return Infinity;
  const { held } = await navigator.locks.query();
  return held.filter(({ name }) => name === NAME).length - 1;
}
