/** Tokens and cost, as model APIs report them. Pure. */

/** @typedef {{inputTokens: number, outputTokens: number, totalTokens: number, costUsd?: number, model?: string}} Tokens */

const INPUT = ["inputTokens", "input_tokens", "promptTokens", "prompt_tokens"];
const OUTPUT = ["outputTokens", "output_tokens", "completionTokens", "completion_tokens"];
const TOTAL = ["totalTokens", "total_tokens"];
/** Parts of the input that Anthropic counts apart. */
const CACHED = ["cache_creation_input_tokens", "cache_read_input_tokens"];

/** Whatever an API calls usage: objects of the AI SDK, OpenAI and Anthropic. @param {any} given @returns {Tokens} */
export function usageOf(given) {
  const found = typeof given === "object" && given !== null ? given : {};
  const inputTokens = first(found, INPUT) + CACHED.reduce((sum, name) => sum + count(found[name]), 0);
  const outputTokens = first(found, OUTPUT);
  const costUsd = Number(found.costUsd);
  return {
    inputTokens,
    outputTokens,
    totalTokens: first(found, TOTAL) || inputTokens + outputTokens,
    ...(found.costUsd != null && Number.isFinite(costUsd) && { costUsd }),
    ...(typeof found.model === "string" && { model: found.model }),
  };
}

/** @param {Tokens} one @param {Tokens} other @returns {Tokens} */
export function plus(one, other) {
  const hasCost = one.costUsd !== undefined || other.costUsd !== undefined;
  const model = other.model ?? one.model;
  return {
    inputTokens: one.inputTokens + other.inputTokens,
    outputTokens: one.outputTokens + other.outputTokens,
    totalTokens: one.totalTokens + other.totalTokens,
    ...(hasCost && { costUsd: (one.costUsd ?? 0) + (other.costUsd ?? 0) }),
    ...(model !== undefined && { model }),
  };
}

/** @param {any} found @param {string[]} names */
function first(found, names) {
  for (const name of names) if (found[name] != null) return count(found[name]);
  return 0;
}

/** A number of tokens; 0 of what is none. The AI SDK's providers give {total}. @param {any} value */
function count(value) {
  const number = Math.round(Number(typeof value === "object" && value !== null ? value.total : value));
  return Number.isSafeInteger(number) && number > 0 ? number : 0;
}
