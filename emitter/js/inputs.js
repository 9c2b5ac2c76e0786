/** Questions to people, and the ids by which a later attempt finds their answers. */
import { InvalidEvent } from "./errors.js";
import { storable } from "./storable.js";

/**
 * @typedef {"approval" | "choice" | "text" | "form"} InputKind
 *
 * @typedef {object} AskOptions
 * @property {readonly string[]} [options] of a choice
 * @property {Record<string, unknown>} [schema] a JSON Schema, of a form; `{}` for a text: any JSON is an answer
 * @property {number} [expiresIn] seconds; absent: the wait ends with the execution
 * @property {string} [inputId] your own id stands for one question only
 * @property {AbortSignal} [signal] ends the wait; the question stays open
 *
 * @typedef {{inputId: string, prompt: string, kind: InputKind, options?: string[], schema?: object, expiresAt?: number}}
 *   InputRequest
 */

const INPUT_ID = /^[A-Za-z0-9_.-]{1,64}$/;
const MAX_OPTIONS = 100;
const MAX_SECONDS = 3650 * 86_400;

/** Makes the questions of one attempt. The id comes from the question, and from how often this attempt has asked it: a
 * later attempt that asks the same finds the answer to it, and never that to another question. */
export class Inputs {
  /** @type {Map<string, number>} */
  #asked = new Map();

  /** @param {string} prompt @param {InputKind} kind @param {AskOptions} options @returns {Promise<InputRequest>} */
  async make(prompt, kind, { options, schema, expiresIn, inputId }) {
    check(prompt, kind, options, schema, expiresIn, inputId);
    const expiresAt = expiresIn === undefined ? undefined : Date.now() + Math.floor(expiresIn * 1000);
    const asked = JSON.stringify(sorted(storable([prompt, kind, options ?? null, schema ?? null])));
    const number = (this.#asked.get(asked) ?? 0) + 1;
    if (inputId === undefined) this.#asked.set(asked, number);
    const id = inputId ?? `in_${await digest(asked)}_${number}`;
    return {
      inputId: id,
      prompt,
      kind,
      ...(options && { options: [...options] }),
      ...(schema && { schema }),
      ...(expiresAt && { expiresAt }),
    };
  }
}

/** @param {string} prompt @param {InputKind} kind @param {readonly string[] | undefined} options @param {unknown} schema
 * @param {number | undefined} expiresIn @param {string | undefined} inputId */
function check(prompt, kind, options, schema, expiresIn, inputId) {
  if (typeof prompt !== "string") throw new InvalidEvent("prompt: a question is text");
  if (!["approval", "choice", "text", "form"].includes(kind))
    throw new InvalidEvent(`kind: ${JSON.stringify(kind)} is no kind of question`);
  const listed = Array.isArray(options) ? options : [];
  if (options !== undefined && (!Array.isArray(options) || listed.some((each) => typeof each !== "string")))
    throw new InvalidEvent("options: a list of texts");
  const usable = new Set(listed.filter((each) => each.trim() !== ""));
  if (kind === "choice" && (listed.length === 0 || usable.size < listed.length || listed.length > MAX_OPTIONS))
    throw new InvalidEvent(`options: a choice has 1 to ${MAX_OPTIONS} different texts that are not blank`);
  if (schema !== undefined && (typeof schema !== "object" || schema === null || Array.isArray(schema)))
    throw new InvalidEvent("schema: a JSON Schema is an object here");
  if (expiresIn !== undefined && !(expiresIn > 0 && expiresIn <= MAX_SECONDS))
    throw new InvalidEvent(`expiresIn: ${String(expiresIn)} is not above 0 s and at most ${MAX_SECONDS} s`);
  if (inputId !== undefined && !INPUT_ID.test(inputId)) throw new InvalidEvent("inputId: 1 to 64 of A-Z a-z 0-9 _ . -");
}

/** @param {any} value @returns {any} */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.keys(value)
    .sort()
    .map((name) => [name, sorted(value[name])]);
}

/** @param {string} text */
async function digest(text) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return Array.from(hash.subarray(0, 5), (each) => each.toString(16).padStart(2, "0")).join("");
}
