// The MCP clients for JavaScript, unmodified: `mcp_clients.mjs WHICH URL TOKEN WHAT`; prints JSON.
const [which, url, token, what] = process.argv.slice(2);
const requestInit = { headers: { Authorization: `Bearer ${token}` } };
const info = { name: "runcast-test", version: "1.0.0" };

/** Says yes to what is asked. */
async function elicit(request) {
  const [name] = Object.keys(request.params.requestedSchema.properties);
  return { action: "accept", content: { [name]: true } };
}

function shown(result, progress) {
  const texts = result.content.filter((block) => block.type === "text").map((block) => block.text);
  return { texts, error: result.isError ?? false, structured: result.structuredContent, progress };
}

async function all(client, call) {
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  const told = await call("run_teller");
  const asked = await call("run_asker");
  const failed = await call("run_failer");
  const uri = `runcast://executions/${told.structured.executionId}`;
  const page = (await client.readResource({ uri })).contents[0].text;
  return { tools, told, asked, failed, page };
}

const clients = {
  /** @modelcontextprotocol/sdk, which knows versions up to 2025-11-25. */
  async sdk() {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const { ElicitRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
    const client = new Client(info, { capabilities: { elicitation: {} } });
    client.setRequestHandler(ElicitRequestSchema, elicit);
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
    const call = async (name) => {
      const progress = [];
      const onprogress = (each) => progress.push(each.progress);
      const options = { onprogress, resetTimeoutOnProgress: true };
      return shown(await client.callTool({ name, arguments: { task: "do" } }, undefined, options), progress);
    };
    const found = what === "all" ? await all(client, call) : await call(what);
    await client.close();
    return found;
  },

  /** @modelcontextprotocol/client, in 2026-07-28. */
  async client() {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const options = { capabilities: { elicitation: {} }, versionNegotiation: { mode: "auto" } };
    const client = new Client(info, options);
    client.setRequestHandler("elicitation/create", elicit);
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
    const call = async (name) => {
      const progress = [];
      const onprogress = (each) => progress.push(each.progress);
      return shown(await client.callTool({ name, arguments: { task: "do" } }, { onprogress }), progress);
    };
    const found = what === "all" ? await all(client, call) : await call(what);
    await client.close();
    return { ...found, era: client.getProtocolEra?.() };
  },

  /** @modelcontextprotocol/ext-tasks over that client, with the raw requests that it needs beside it. */
  async tasks() {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const ext = await import("@modelcontextprotocol/ext-tasks/client");
    const version = "2026-07-28";
    const capabilities = { elicitation: {}, extensions: { "io.modelcontextprotocol/tasks": {} } };
    const client = new Client(info, { capabilities, versionNegotiation: { mode: "auto" } });
    client.setRequestHandler("elicitation/create", elicit);
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
    const names = { "tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId" };
    const rawDispatch = async (request, options) => {
      const headers = {
        ...requestInit.headers,
        "Content-Type": "application/json",
        Accept: "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
        "Mcp-Method": request.method,
      };
      const name = request.params?.[names[request.method]];
      if (name !== undefined) headers["Mcp-Name"] = name;
      const body = JSON.stringify({ jsonrpc: "2.0", id: String(Math.random()), ...request });
      const response = await fetch(url, { method: "POST", headers, body, signal: options?.signal });
      const text = await response.text();
      const isStream = response.headers.get("content-type")?.includes("event-stream");
      const last = text.trim().split("\n").at(-1);
      const { result, error } = JSON.parse(isStream ? last.slice(6) : text);
      return error === undefined ? { kind: "result", result } : { kind: "error", error };
    };
    const framing = { protocolVersion: version, clientInfo: info, clientCapabilities: capabilities };
    const session = ext.createTaskSessionFromClient(client, {
      endpointId: "runcast",
      rawDispatch,
      v2RequestFraming: framing,
    });
    const execution = await session.callTool(what, { seconds: 4, label: "it" });
    const { outcome } = await execution.settle();
    const result = ext.resultFromTaskOutcome(outcome);
    await session.close();
    await client.close();
    return { kind: execution.kind, ...shown(result, []) };
  },

  /** @ai-sdk/mcp, whose tools a model calls. */
  async ai() {
    const { createMCPClient } = await import("@ai-sdk/mcp");
    const client = await createMCPClient({ transport: { type: "http", url, headers: requestInit.headers } });
    const tools = await client.tools();
    const result = await tools[what].execute({ task: "do" }, { toolCallId: "c", messages: [] });
    await client.close();
    return { tools: Object.keys(tools), ...shown(result, []) };
  },
};

console.log(JSON.stringify(await clients[which]()));
