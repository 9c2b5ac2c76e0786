// `openai` for Node and `@ai-sdk/open-responses`, unmodified: `node responses_js.mjs <what> <base URL> <token>` prints
// what it got as JSON.
import OpenAI from "openai";
import { createOpenResponses } from "@ai-sdk/open-responses";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai7";

const [what, baseURL, token] = process.argv.slice(2);

async function openai() {
  const client = new OpenAI({ baseURL, apiKey: token, maxRetries: 0 });
  const first = await client.responses.create({ model: "model", input: "I am Ann." });
  const stream = client.responses.stream({ model: "model", input: "Who am I?", previous_response_id: first.id });
  const numbers = [];
  for await (const event of stream) numbers.push(event.sequence_number);
  const second = await stream.finalResponse();
  const asking = await client.responses.create({ model: "worker", input: "Publish it." });
  const approve = { type: "mcp_approval_response", approval_request_id: asking.output.at(-1).id, approve: false };
  const asked = await client.responses.create({ model: "worker", input: [approve], previous_response_id: asking.id });
  const output = { type: "function_call_output", call_id: asked.output.at(-1).call_id, output: "here" };
  const answered = await client.responses.create({ model: "worker", input: [output], previous_response_id: asked.id });
  const rest = [];
  const after = await client.responses.retrieve(second.id, { stream: true, starting_after: 3 });
  for await (const event of after) rest.push(event.sequence_number);
  const failing = await client.responses.create({ model: "failer", input: "x", stream: true });
  let failed;
  for await (const event of failing) failed = event;
  const refused = await client.responses.retrieve("resp_nope").catch((error) => [error.status, error.code]);
  return {
    text: first.output_text,
    second: second.output_text,
    numbers,
    rest,
    types: asking.output.map((item) => item.type),
    answered: answered.output_text,
    failed: [failed.type, failed.response.error.message],
    refused,
    models: (await client.models.list()).data.length,
  };
}

async function ai() {
  const provider = createOpenResponses({ name: "runcast", url: `${baseURL}/responses`, apiKey: token });
  const model = provider("model");
  const plain = await generateText({ model, prompt: "Hi.", instructions: "Be brief." });
  const inputSchema = jsonSchema({ type: "object", properties: { location: { type: "string" } } });
  const tools = {
    get_weather: tool({ description: "w", inputSchema, execute: async ({ location }) => `fog in ${location}` }),
  };
  const called = await generateText({ model, prompt: "The weather?", tools, stopWhen: stepCountIs(3) });
  const streamed = streamText({ model, prompt: "Hi." });
  let reasoning = "";
  for await (const part of streamed.fullStream) if (part.type === "reasoning-delta") reasoning += part.text;
  const ask_user = tool({ description: "a", inputSchema: jsonSchema({ type: "object" }) });
  const asking = await generateText({ model: provider("worker"), prompt: "Publish it.", tools: { ask_user } });
  const failing = streamText({ model: provider("failer"), prompt: "x", onError: () => {} });
  let failed;
  for await (const part of failing.fullStream) if (part.type === "error") failed = String(part.error.message ?? part.error);
  return {
    plain: plain.text,
    called: called.text,
    steps: called.steps.length,
    streamed: await streamed.text,
    reasoning,
    finish: await streamed.finishReason,
    asking: [asking.finishReason, asking.toolCalls[0].toolName, asking.toolCalls[0].input.prompt],
    failed,
  };
}

console.log(JSON.stringify(await { openai, ai }[what]()));
