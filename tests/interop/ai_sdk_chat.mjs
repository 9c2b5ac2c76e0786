// A chat of the Vercel AI SDK without a framework: what a framework's binding keeps, and who waits for a change of it.

class State {
  #status = "ready";
  #woken = [];
  error = undefined;
  constructor(messages = []) {
    this.messages = messages;
  }
  get status() {
    return this.#status;
  }
  set status(status) {
    this.#status = status;
    this.changed();
  }
  pushMessage = (message) => {
    this.messages = this.messages.concat(message);
    this.changed();
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), structuredClone(message), ...this.messages.slice(index + 1)];
    this.changed();
  };
  snapshot = (value) => structuredClone(value);
  changed() {
    for (const wake of this.#woken.splice(0)) wake();
  }
  next() {
    return new Promise((wake) => this.#woken.push(wake));
  }
}

/** The chat of one version of the SDK: `next` waits until it may have changed, `wake` ends that wait. */
export const chatOf = ({ AbstractChat }) =>
  class extends AbstractChat {
    #kept;
    constructor(init) {
      const state = new State(init.messages);
      super({ ...init, state });
      this.#kept = state;
    }
    next() {
      return this.#kept.next();
    }
    wake() {
      this.#kept.changed();
    }
  };
