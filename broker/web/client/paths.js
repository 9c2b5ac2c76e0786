/** @param {string} executionId */
export function executionPath(executionId) {
  return "/api/agent/executions/" + encodeURIComponent(executionId);
}
