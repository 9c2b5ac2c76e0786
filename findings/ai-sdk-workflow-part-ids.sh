#!/usr/bin/env bash
# WorkflowChatTransport loses a text whose id was that of another one in the same step, which the other transport shows.
#
# Seen with @ai-sdk/workflow 2.0.43, ai 7.0.173 and Node 20. A stream may use the id of a part again once that has ended:
# `readUIMessageStream`, and a chat over DefaultChatTransport, make two parts of it. WorkflowChatTransport passes every
# stream through a filter that takes the second part for a repeat of the first, if no step has ended in between, and leaves
# its chunks out: on a connection that never broke, without an error or a warning. An agent that says something, calls a
# tool and goes on under the id of its message meets it. A good guess would have been that the two transports of one SDK
# show one stream alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund --legacy-peer-deps @ai-sdk/workflow@2.0.43 ai@7.0.173 zod@4.1.12
cat >run.mjs <<'JS'
import assert from "node:assert";
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";
import { DefaultChatTransport, readUIMessageStream } from "ai";

const text = (said) => [
  { type: "text-start", id: "m" },
  { type: "text-delta", id: "m", delta: said },
  { type: "text-end", id: "m" },
];
const call = { toolCallId: "c", toolName: "look", dynamic: true, providerExecuted: true };
const chunks = [
  { type: "start" },
  { type: "start-step" },
  ...text("before"),
  { type: "tool-input-available", ...call, input: {} },
  { type: "tool-output-available", ...call, output: 1 },
  ...text("after"),
  { type: "finish-step" },
  { type: "finish" },
];
const body = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
const headers = { "content-type": "text/event-stream", "x-workflow-run-id": "run" };
const fetch = async () => new Response(body, { headers });

async function shown(transport) {
  const stream = await transport.sendMessages({ chatId: "c", messages: [], trigger: "submit-message" });
  let message;
  for await (message of readUIMessageStream({ stream }));
  return message.parts.filter((part) => part.type === "text").map((part) => part.text);
}

const byDefault = await shown(new DefaultChatTransport({ fetch }));
const byWorkflow = await shown(new WorkflowChatTransport({ fetch }));
console.log("DefaultChatTransport: ", byDefault);
console.log("WorkflowChatTransport:", byWorkflow);
assert.deepEqual(byDefault, ["before", "after"]);
assert.deepEqual(byWorkflow, ["before"]);
JS
node --no-warnings run.mjs
