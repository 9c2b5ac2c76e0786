#!/usr/bin/env bash
# An event `error` before `response.failed` hides the failed response from OpenAI's client, and its shape of the reference
# hides the message from the AI SDK's provider.
#
# Seen with openai 7.59.0, @ai-sdk/open-responses 2.0.36 and Node 20. Open Responses says that an error is followed by
# `response.failed`. OpenAI's client throws at the event `error`, so that what follows is never seen. There are two shapes
# of it: OpenAI's reference has the code and the message in the event itself, the schema of Open Responses has them in a
# member `error`. With the first one the AI SDK's provider reports a fault of its own reading instead of the message. A
# server that sends `response.failed` alone is reported rightly by both. A good guess would have been that an event of the
# specification is safe to send.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund --legacy-peer-deps openai@7.59.0 @ai-sdk/open-responses@2.0.36 zod@4.1.12
cat >run.mjs <<'JS'
import assert from "node:assert";
import { createOpenResponses } from "@ai-sdk/open-responses";
import OpenAI from "openai";

const response = { id: "resp_1", object: "response", status: "in_progress", output: [], error: null };
const error = { code: "server_error", message: "the disk is full" };
const created = { type: "response.created", sequence_number: 0, response };
const failed = { type: "response.failed", sequence_number: 2, response: { ...response, status: "failed", error } };
const shapes = {
  flat: [{ type: "error", sequence_number: 1, param: null, ...error }],
  nested: [{ type: "error", sequence_number: 1, error: { type: "server_error", param: null, ...error } }],
  none: [],
};

function fetchOf(shape) {
  const events = [created, ...shapes[shape], failed];
  const body = events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("");
  return async () => new Response(body, { headers: { "content-type": "text/event-stream" } });
}

async function openai(shape) {
  const client = new OpenAI({ baseURL: "http://server.invalid/v1", apiKey: "k", fetch: fetchOf(shape), maxRetries: 0 });
  const seen = [];
  try {
    for await (const event of await client.responses.create({ model: "m", input: "x", stream: true })) {
      seen.push(event.type);
    }
  } catch {
    seen.push("thrown");
  }
  return seen.at(-1);
}

async function ai(shape) {
  const provider = createOpenResponses({ name: "s", url: "http://server.invalid/v1/responses", fetch: fetchOf(shape) });
  const prompt = [{ role: "user", content: [{ type: "text", text: "x" }] }];
  const { stream } = await provider("m").doStream({ prompt });
  const said = [];
  try {
    for await (const part of stream) if (part.type === "error") said.push(part.error.message ?? String(part.error));
  } catch (problem) {
    said.push(problem.message);
  }
  return said[0];
}

const found = {};
for (const shape in shapes) {
  found[shape] = { openai: await openai(shape), ai: await ai(shape) };
  console.log(shape.padEnd(6), JSON.stringify(found[shape]));
}
assert.equal(found.flat.openai, "thrown");
assert.notEqual(found.flat.ai, error.message);
assert.deepEqual(found.nested, { openai: "thrown", ai: error.message });
assert.deepEqual(found.none, { openai: "response.failed", ai: error.message });
JS
node --no-warnings run.mjs
