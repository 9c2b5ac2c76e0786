/** @param {string} executionId */
export function executionPath(executionId: string): string;
