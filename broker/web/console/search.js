/** A search at the edge in all of one's executions, also those that the list has not loaded. */

const PAUSE_MS = 300;
const LIMIT = 50;
/** A page may be empty and still continue: so many are read for one step. */
const MAX_PAGES = 5;

export class Search {
  /** `onChange`: there is something new to draw. */
  constructor(client, onChange) {
    this._client = client;
    this._onChange = onChange;
    this._timer = 0;
    this._abort = null;
    this._reset();
  }

  get hasMore() {
    return this._cursor !== null;
  }

  /** Search for words, in a state if there is one, once nothing was typed for a moment. */
  look(words, state) {
    const query = words ? { q: words, ...(state ? { state } : {}) } : null;
    if (JSON.stringify(query) === JSON.stringify(this._query)) return;
    clearTimeout(this._timer);
    this._abort?.abort();
    this._reset();
    this._query = query;
    this.isBusy = query !== null;
    if (query !== null) this._timer = setTimeout(() => void this.more(), PAUSE_MS);
  }

  /** Read on. */
  async more() {
    const abort = (this._abort = new AbortController());
    try {
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const query = { ...this._query, limit: LIMIT, ...(this._cursor ? { cursor: this._cursor } : {}) };
        const { executions, nextCursor } = await this._client.executions(query, { signal: abort.signal });
        if (abort.signal.aborted) return;
        this.executions = [...this.executions, ...executions.map(itemOf)];
        this._cursor = nextCursor ?? null;
        if (executions.length || this._cursor === null) break;
      }
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error = error.detail || error.message;
    }
    this.isBusy = false;
    this._onChange();
  }

  _reset() {
    this._query = null;
    this._cursor = null;
    this.executions = [];
    this.isBusy = false;
    this.error = null;
  }
}

/** A summary of the API as the list has it. */
export function itemOf(summary) {
  return { ...summary, progress: null, activity: null, openInputs: [] };
}
