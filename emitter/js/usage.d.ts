/** Whatever an API calls usage: objects of the AI SDK, OpenAI and Anthropic. @param {any} given @returns {Tokens} */
export function usageOf(given: any): Tokens;
/** @param {Tokens} one @param {Tokens} other @returns {Tokens} */
export function plus(one: Tokens, other: Tokens): Tokens;
export type Tokens = {
    inputTokens: number;
    outputTokens: number;
    totalTokens: number;
    costUsd?: number;
    model?: string;
};
