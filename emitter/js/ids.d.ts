/** Ids. Pure, but for chance and the clock. */
/** @param {number} bytes */
export function randomHex(bytes: number): string;
/** `ex_` and 26 characters that sort by time. */
export function newExecutionId(): string;
