// What the clients of `all_clients.mjs` are given and how they tell what they are at.
import { createInterface } from "node:readline";

export const [kind, argument] = process.argv.slice(2);
export const given = JSON.parse(argument);
export const headers = { Authorization: `Bearer ${given.token}` };

/** What the test sends: a line says go on. */
export const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const say = (facts) => process.stdout.write(JSON.stringify(facts) + "\n");

/** The edge of this leg of the journey; the last one from there on. */
export const url = (leg) => given.urls[Math.min(leg, given.urls.length - 1)];

/** Whether it was the connection that failed, as what caused the error says. */
export function isLost(error) {
  for (let at = error; at; at = at.cause) {
    if (["ECONNRESET", "UND_ERR_SOCKET"].includes(at.code) || at.message === "terminated") return true;
  }
  return false;
}

/** Of an object, what is not null. */
export const present = (value) => Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null));
