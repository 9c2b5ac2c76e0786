/** Requests of this page as commands. They never contain the token, but `$RUNCAST_TOKEN`. */

const HEADER = '-H "Authorization: Bearer $RUNCAST_TOKEN"';

/** Follow an execution's stream; `client`: the one that shows it. */
export function streamCommand(client, executionId) {
  return `curl -N ${HEADER} ${quoted(client.url(`/api/agent/executions/${executionId}/stream`))}`;
}

/** Start an execution. */
export function executeCommand(request) {
  const body = JSON.stringify(request);
  return `curl ${HEADER} -H 'Content-Type: application/json' -d ${quoted(body)} ${quoted(`${location.origin}/api/agent/execute`)}`;
}

/** One word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Copy to the clipboard, which browsers allow on https and localhost; whether it succeeded. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
