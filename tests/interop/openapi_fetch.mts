// What an application writes with `openapi-fetch` and the types that `openapi-typescript` makes of /openapi.json, both at
// their defaults. It is checked by the compiler, and then run: `node openapi_fetch.mjs <edge> <token>`.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [baseUrl, token] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

const started = await client.POST("/api/agent/execute", {
  body: { task: "look", agent: "keeper", params: { depth: 3, about: { who: ["me"] } } },
});
if (started.error) throw new Error(started.error.title);
const id: string = started.data.executionId;

// The compiler minds what is wrong, or all of this would mean nothing.
// @ts-expect-error a task is needed
client.POST("/api/agent/execute", { body: { agent: "keeper" } }).catch(() => {});
// @ts-expect-error and is text
client.POST("/api/agent/execute", { body: { task: 1 } }).catch(() => {});
// @ts-expect-error there is no such path
client.GET("/api/agent/nothing").catch(() => {});

async function state(): Promise<components["schemas"]["ExecutionState"]> {
  const { data, error } = await client.GET("/api/agent/executions/{id}", { params: { path: { id } } });
  if (error) throw new Error(error.title);
  if (!("status" in data)) throw new Error("a tree, which was not asked for");
  return data;
}

let reached = await state();
for (let tries = 0; reached.status !== "completed" && tries < 200; tries++) {
  await new Promise((wait) => setTimeout(wait, 50));
  reached = await state();
}

const events = await client.GET("/api/agent/executions/{id}/events", { params: { path: { id }, query: { limit: 5 } } });
const chat = await client.GET("/api/agent/chat/{chatId}", { params: { path: { chatId: id } } });
// As JSON it is a page, as NDJSON a line for each.
const first = events.data && "events" in events.data ? events.data.events[0]?.event : undefined;
const task: string | undefined = first?.type === "execution:queued" ? first.data.task : undefined;
console.log(JSON.stringify({ status: reached.status, result: reached.result, task, chat: chat.data?.messages }));
