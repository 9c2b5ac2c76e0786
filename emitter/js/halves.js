/** Halves of surrogate pairs in streamed text: some providers split an emoji over two chunks. Pure. */

const MAX_WAITING = 256;
const LONE = "\ufffd";

export class Halves {
  /** @type {Map<string, {type: string, messageId: string, half: string, speaker: any}>} */
  #waiting = new Map();

  /** The chunk with the half before it, without the half at its end. @param {string} type @param {string} messageId
   * @param {string} delta @param {any} speaker kept with a half */
  join(type, messageId, delta, speaker) {
    const key = type + " " + messageId;
    const before = this.#waiting.get(key)?.half ?? "";
    this.#waiting.delete(key);
    const whole = before + delta;
    const last = whole.charCodeAt(whole.length - 1);
    if (!(last >= 0xd800 && last <= 0xdbff) || this.#waiting.size >= MAX_WAITING) return whole;
    this.#waiting.set(key, { type, messageId, half: whole.slice(-1), speaker });
    return whole.slice(0, -1);
  }

  /** What waits of one message, or of all, as U+FFFD. @param {string} [messageId] */
  release(messageId) {
    const found = [...this.#waiting].filter(([, each]) => messageId === undefined || each.messageId === messageId);
    for (const [key] of found) this.#waiting.delete(key);
    return found.map(([, { type, messageId: id, speaker }]) => ({
      type,
      data: { messageId: id, delta: LONE },
      speaker,
    }));
  }
}
