/**
 * The event catalogue: the fields of each type, and what an event has in a field whose value is not allowed. Pure.
 *
 * The same as `emitter/events.py`; a test compares them.
 */
import { clip, storable, wellFormed } from "./storable.js";

const MAX_INTEGER = Number.MAX_SAFE_INTEGER;
const MAX_MILLIS = 253_402_300_799_999;
const MAX_ATTEMPT = 2 ** 31 - 1;
const ROUNDING = 1e-6;
const CUSTOM = "custom:";
const NOT_IN_CUSTOM_NAME = /[^a-z0-9_.-]/g;
const CUSTOM_NAME_MAX = 64;

/**
 * A kind of field: `mend` makes an allowed value of any other, `allows` says whether that is needed.
 * @typedef {{name: string, allows: (value: any) => boolean, mend: (value: any) => any}} Kind
 * @typedef {{kind: Kind, required: boolean}} Field
 */

/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Any value as text: null is "", and a value that is no text is written as JSON. @param {unknown} value */
export function words(value) {
  const found = storable(value);
  if (typeof found === "string") return found;
  return found === null ? "" : JSON.stringify(found);
}

/** @param {unknown} value @param {number} least @param {number} most */
function numberOf(value, least, most) {
  const found = Number(typeof value === "object" ? NaN : value);
  return Math.min(Math.max(Number.isFinite(found) ? found : 0, least), most);
}

/** @type {Kind} */
const text = { name: "text", allows: isText, mend: words };
/** @type {Kind} */
const any = { name: "any", allows: () => true, mend: storable };
/** @type {Kind} */
const flag = { name: "flag", allows: (value) => typeof value === "boolean", mend: Boolean };
/** @type {Kind} */
const seconds = {
  name: "number",
  allows: isNumber,
  mend: (value) => Math.round(numberOf(value, -Number.MAX_VALUE, Number.MAX_VALUE) * 1e6) / 1e6,
};
/** @type {Kind} */
const amount = {
  name: "number",
  allows: isNumber,
  mend: (value) => numberOf(value, -Number.MAX_VALUE, Number.MAX_VALUE),
};
/** @type {Kind} */
const percent = {
  name: "percent",
  allows: (value) => isNumber(value) && value >= -ROUNDING && value <= 100 + ROUNDING,
  mend: (value) => numberOf(value, 0, 100),
};
/** @type {Kind} */
const texts = {
  name: "texts",
  allows: (value) => Array.isArray(value) && value.every(isText),
  mend: (value) => {
    const found = storable(value);
    return Array.isArray(found) ? found.map(words) : found === null ? [] : [words(found)];
  },
};
/** @type {Kind} */
const object = {
  name: "object",
  allows: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  mend: (value) => {
    const found = storable(value);
    return typeof found === "object" && found !== null && !Array.isArray(found) ? found : { value: found };
  },
};

/** @param {number} least @param {number} most @returns {Kind} */
function integer(least = -MAX_INTEGER, most = MAX_INTEGER) {
  return {
    name: "integer",
    allows: (value) => Number.isInteger(value) && value >= least && value <= most,
    mend: (value) => numberOf(Math.round(numberOf(value, least, most)), least, most),
  };
}

/** @param {...string} values @returns {Kind} */
function oneOf(...values) {
  return {
    name: "oneOf",
    allows: (value) => values.includes(value),
    mend: (value) => (values.includes(value) ? value : values[0]),
  };
}

/** @type {Kind} */
const usage = {
  name: "Usage",
  allows: (value) => object.allows(value) && fits(USAGE, value),
  mend: (value) => mendFields(USAGE, object.mend(value)),
};
/** @type {Kind} */
const phases = {
  name: "phases",
  allows: (value) => Array.isArray(value) && value.every((each) => object.allows(each) && fits(PHASE, each)),
  mend: (value) => (Array.isArray(value) ? value : value == null ? [] : [value]).map(phaseOf),
};
/** @type {Kind} */
const plan = {
  name: "Plan",
  allows: (value) => object.allows(value) && fits(PLAN, value),
  mend: (value) => mendFields(PLAN, object.allows(value) ? value : { goal: value }),
};

/** A phase as an object, as a pair of id and name, or as a text that is both. @param {any} phase */
function phaseOf(phase) {
  if (object.allows(phase)) return mendFields(PHASE, phase);
  const [id, name] = Array.isArray(phase) && phase.length === 2 ? phase : [phase, phase];
  return { id: words(id), name: words(name) };
}

/** @param {Record<string, Kind>} required @param {Record<string, Kind>} [optional] @returns {Record<string, Field>} */
function fields(required, optional = {}) {
  /** @param {boolean} isRequired @returns {(entry: [string, Kind]) => [string, Field]} */
  const as =
    (isRequired) =>
    ([name, kind]) => [name, { kind, required: isRequired }];
  return Object.fromEntries([...Object.entries(required).map(as(true)), ...Object.entries(optional).map(as(false))]);
}

const tokens = { inputTokens: integer(), outputTokens: integer() };
const USAGE = fields({ ...tokens, totalTokens: integer() }, { costUsd: amount, model: text });
const PHASE = fields({ id: text, name: text });
const PLAN = fields({ goal: text, phases });
const call = { callId: text, toolName: text };
const millis = integer(0, MAX_MILLIS);

/** The fields of each type that may be published. @type {Record<string, Record<string, Field>>} */
export const CATALOGUE = {
  "execution:started": fields({ task: text, startedAt: millis, attempt: integer(0, MAX_ATTEMPT) }, { budget: object }),
  "plan:created": fields({ plan }),
  "phase:start": fields({ phaseId: text, phaseName: text }, { phaseIndex: integer() }),
  "phase:complete": fields({ phaseId: text, phaseName: text }, { duration: seconds }),
  thinking: fields({ thought: text }, { iteration: integer(), visible: flag }),
  "thinking:delta": fields({ messageId: text, delta: text }),
  "message:delta": fields({ messageId: text, delta: text }),
  "message:complete": fields({ messageId: text }, { text, usage }),
  "tool:start": fields({ ...call, params: any }),
  "tool:progress": fields({ callId: text }, { progress: percent, message: text }),
  "tool:complete": fields({ ...call, result: any, duration: seconds }),
  "tool:error": fields({ ...call, error: text, duration: seconds }),
  status: fields({ status: text, message: text }),
  progress: fields({ progress: percent }, { currentAction: text, specialist: text }),
  "specialist:activated": fields({ specialist: text }, { task: text, icon: text }),
  "specialist:complete": fields({ specialist: text }, { summary: text }),
  "partial:result": fields({ result: any }, { specialist: text }),
  synthesis: fields({ message: text, specialistsComplete: texts, specialistsPending: texts }),
  artifact: fields(
    { artifactId: text, mediaType: text },
    { name: text, text, data: any, url: text, append: flag, last: flag },
  ),
  usage: USAGE,
  "model:call": fields(
    { callId: text, model: text, ...tokens, duration: seconds },
    { provider: text, prompt: any, answer: any, costUsd: amount, firstTokenSeconds: seconds, error: text },
  ),
  "input:required": fields(
    { inputId: text, prompt: text, kind: oneOf("approval", "choice", "text", "form") },
    { options: texts, schema: object, expiresAt: millis },
  ),
  timeout: fields({ message: text, action: oneOf("continuing", "stopping") }),
  "sandbox:violation": fields({ rule: text, detail: text }),
  "execution:complete": fields({ result: any, duration: seconds }, { tokensUsed: integer() }),
  "execution:error": fields({ error: text }, { code: text }),
  "execution:cancelled": fields({}, { reason: text, by: text }),
};

/** Types that are refused rather than mended: they change what an execution means. */
export const MEANT = new Set(["input:required"]);
/** Terminal type → the state that it leaves. @type {Record<string, string>} */
export const TERMINAL_STATE_OF = {
  "execution:complete": "completed",
  "execution:error": "failed",
  "execution:cancelled": "cancelled",
};

/** Whether a type is known, or an event of one's own. @param {string} type */
export function isKnown(type) {
  return Object.hasOwn(CATALOGUE, type) || type.startsWith(CUSTOM);
}

/** Why the catalogue does not allow this data as it is; null if it does. @param {string} type @param {any} data
 * @returns {string | null} */
export function misfit(type, data) {
  if (!isKnown(type)) return `${JSON.stringify(type)} is not an event that can be published`;
  if (!object.allows(data)) return `${type}: its data must be an object`;
  if (type.startsWith(CUSTOM))
    return customType(type) === type ? null : `${type}: its name must be 1 to 64 of a-z 0-9 _ . -`;
  const known = CATALOGUE[type];
  for (const name of Object.keys(data))
    if (!Object.hasOwn(known, name)) return `${type}: there is no field \`$.${name}\``;
  for (const [name, { kind, required }] of Object.entries(known)) {
    if (data[name] === undefined ? required : !kind.allows(data[name]))
      return `${type}: \`$.${name}\` must be ${kind.name}`;
  }
  return null;
}

/** The data of an event with every field in a form that the catalogue allows, at any length; fields that it does not
 * know are left out. @param {string} type @param {any} data @returns {{type: string, data: Record<string, any>}} */
export function mended(type, data) {
  if (type.startsWith(CUSTOM)) return { type: customType(type), data: object.mend(data) };
  const given = object.allows(data) ? data : {};
  const found = mendFields(CATALOGUE[type], given);
  return { type, data: type === "artifact" ? oneContent(found) : found };
}

/** Mended data, cut to `room` bytes. @param {string} type @param {Record<string, any>} data @param {number} room
 * @returns {Record<string, any>} */
export function shorter(type, data, room) {
  const found = clip(data, room);
  if (type === "artifact" && data.url !== undefined && found.url !== data.url) {
    // A part of a link or of an image is useless.
    delete found.url;
    found.data = { clipped: true, bytes: data.url.length };
  }
  return type.startsWith(CUSTOM) ? object.mend(found) : mendFields(CATALOGUE[type], found);
}

/** @param {Record<string, Field>} known @param {any} data */
function fits(known, data) {
  return Object.entries(known).every(([name, { kind, required }]) =>
    data[name] === undefined ? !required : kind.allows(data[name]),
  );
}

/** @param {Record<string, Field>} known @param {any} data @returns {Record<string, any>} */
function mendFields(known, data) {
  /** @type {Record<string, any>} */
  const found = {};
  for (const [name, { kind, required }] of Object.entries(known)) {
    const value = fieldOf(data, name);
    if (required || (value !== undefined && value !== null)) found[name] = kind.mend(value);
  }
  return found;
}

/** @param {any} data @param {string} name */
function fieldOf(data, name) {
  try {
    return data[name];
  } catch {
    return undefined; // a getter may throw anything
  }
}

/** An artifact has exactly one of text, data and url. @param {Record<string, any>} artifact */
function oneContent(artifact) {
  const given = ["text", "url", "data"].filter((name) => artifact[name] !== undefined);
  for (const name of given.slice(1)) delete artifact[name];
  return given.length > 0 ? artifact : { ...artifact, text: "" };
}

/** @param {string} type */
function customType(type) {
  const name = wellFormed(type.slice(CUSTOM.length)).toLowerCase().replace(NOT_IN_CUSTOM_NAME, "_");
  return CUSTOM + (name.slice(0, CUSTOM_NAME_MAX) || "_");
}
