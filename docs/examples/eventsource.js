/** Show an execution's text in an element: `headers` have the token, the ticket stands in for it in the address. */
export async function show(executionId, element, headers, edge = "") {
  const made = await fetch(`${edge}/api/agent/stream-tickets`, { method: "POST", headers, body: "{}" });
  const { ticket } = await made.json();
  const source = new EventSource(`${edge}/api/agent/executions/${executionId}/stream?ticket=${ticket}`);
  source.addEventListener("message:delta", (event) => element.append(JSON.parse(event.data).data.delta));
  source.addEventListener("stream:end", (event) => {
    if (JSON.parse(event.data).reason === "finished") source.close();
  });
  return source;
}
