// Clients of @a2a-js/sdk, of version 1.0 over REST and of 0.3 over JSON-RPC. For `all_clients.mjs`.
import { randomUUID } from "node:crypto";
import { given, isLost, kind, lines, say, url } from "./all_given.mjs";

const isOld = kind === "a2a03"; // whose objects are those of version 0.3
const name = isOld ? "a2a-js-03" : "@a2a-js/sdk";
const sdk = await import(`${name}/client`);
const types = isOld ? null : await import(name);
const TERMINAL = ["completed", "failed", "canceled", "rejected"];

const fetchImpl = (address, options = {}) => {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${given.token}`);
  return fetch(address, { ...options, headers });
};

async function connect(address) {
  const card = await new sdk.DefaultAgentCardResolver({ fetchImpl }).resolve(address);
  const transport = isOld ? sdk.JsonRpcTransportFactory : sdk.RestTransportFactory;
  return new sdk.ClientFactory({
    ...(isOld ? sdk.ClientFactoryOptions.default : {}),
    transports: [new transport({ fetchImpl })],
  }).createFromAgentCard(card);
}

/** [kind, object] of what came, as JSON of its version. */
function told(event) {
  if (isOld) return [event.kind, event];
  const [[kind, value]] = Object.entries(types.StreamResponse.toJSON(event));
  return [{ task: "task", statusUpdate: "status-update", artifactUpdate: "artifact-update" }[kind], value];
}

function send(client, parts, metadata, about = {}) {
  const messageId = randomUUID();
  if (!isOld) {
    const message = { messageId, role: "ROLE_USER", parts, ...about };
    return client.sendMessageStream(types.SendMessageRequest.fromJSON({ message, metadata }));
  }
  const kinds = parts.map((part) => ({ kind: Object.keys(part)[0], ...part }));
  return client.sendMessageStream({ message: { kind: "message", role: "user", messageId, parts: kinds, ...about }, metadata });
}

function subscribe(client, id, cursor) {
  const options = cursor === null ? {} : { serviceParameters: { "Last-Event-ID": cursor } };
  return client.resubscribeTask(isOld ? { id } : { id, tenant: "" }, options);
}

// --- what a client has -----------------------------------------------------------------------------------------------

const content = (part) => part.text ?? part.data ?? part.url ?? part.file?.uri;

/** What a client has that keeps artifacts as the protocol says, and events of ours as they come. When a retry takes
 * over, it leaves out the events that came after `fromSeq`; artifacts are taken back one by one. */
class Kept {
  task = null;
  cursor = null;
  state = null;
  prompt = null;
  artifacts = new Map();
  events = [];
  generations = [];
  prompts = new Set();
  metadata = {};

  take(kind, value) {
    const { metadata } = value;
    this.cursor = metadata.cursor;
    if (kind === "task") {
      this.task = { taskId: value.id, contextId: value.contextId };
      this.artifacts = new Map((value.artifacts ?? []).map((each) => [each.artifactId, each.parts.map(content)]));
    } else {
      this.generations.push([metadata.generation, metadata.event]);
    }
    if (kind === "artifact-update") return this.artifact(value);
    this.status(metadata, value.status);
    this.metadata = { ...this.metadata, ...metadata };
    if (kind === "status-update" && metadata.event === "execution:superseded") {
      this.events = this.events.filter((each) => each.seq <= metadata.fromSeq);
    }
  }

  artifact({ artifact, append }) {
    const { artifactId, parts } = artifact;
    if (artifact.metadata?.void) return void this.artifacts.delete(artifactId);
    if (append && !this.artifacts.has(artifactId)) throw new Error(`added to nothing: ${artifactId}`);
    this.artifacts.set(artifactId, [...(append ? this.artifacts.get(artifactId) : []), ...parts.map(content)]);
  }

  /** The event is in the message; where that is a question, which stands, in the metadata. */
  status(metadata, status) {
    this.state = status.state.replace("TASK_STATE_", "").toLowerCase().replace("_", "-");
    const parts = (status.message?.parts ?? []).map(content);
    const events = "data" in metadata ? [{ type: metadata.event, data: metadata.data }] : parts.filter((part) => part?.type);
    if (this.events.every((each) => each.seq !== metadata.generation)) {
      this.events.push(...events.map((each) => ({ seq: metadata.generation, ...each })));
    }
    if (this.state !== "input-required") return;
    this.prompt = parts.find((part) => typeof part === "string");
    this.prompts.add(this.prompt);
  }

  of(type) {
    return this.events.filter((each) => each.type === type).map((each) => each.data);
  }

  calls() {
    const found = Object.fromEntries(
      this.of("tool:start").map(({ callId, toolName, params }) => [callId, { name: toolName, params }]),
    );
    for (const { callId, result } of this.of("tool:complete")) found[callId].result = result;
    for (const { callId, error } of this.of("tool:error")) found[callId].error = error;
    return Object.values(found);
  }

  outcome() {
    const made = [...this.artifacts].map(([id, parts]) => [id, parts.length === 1 ? parts[0] : parts.join("")]);
    const of = (prefix) => made.filter(([id]) => id.startsWith(prefix)).map(([, value]) => value);
    return {
      status: this.state,
      text: of("message:").join(""),
      tools: this.calls(),
      result: of("runcast:result")[0],
      partials: of("partial:"),
      artifacts: Object.fromEntries(made.filter(([id]) => !id.includes(":"))),
      phases: this.of("phase:complete").map((each) => each.phaseName),
      thoughts: this.of("thinking").map((each) => each.thought),
      specialists: this.of("specialist:complete").map((each) => each.specialist).sort(),
      customs: this.events.map((each) => each.type).filter((type) => type.startsWith("custom:")),
      usage: this.metadata.usage,
      attempt: this.metadata.attempt,
      prompts: [...this.prompts],
      generations: this.generations,
    };
  }
}

// --- what it does ----------------------------------------------------------------------------------------------------

/** Whether the task has settled. A stream that ends before, without an error, is a fault. */
async function read(stream, kept) {
  const isSettled = () => [...TERMINAL, "input-required"].includes(kept.state);
  try {
    for await (const event of stream) kept.take(...told(event));
    if (!isSettled()) throw new Error("the stream has ended, and the task has not");
  } catch (error) {
    if (!isLost(error)) throw error;
    if (!isSettled()) say({ at: "lost", how: String(error), cursor: kept.cursor });
  }
  return isSettled();
}

export async function follow(job) {
  const kept = new Kept();
  let answers = false;
  for (let leg = 0; !TERMINAL.includes(kept.state); leg += 1) {
    const client = await connect(url(leg));
    const starts = kept.task === null && job.execution === undefined;
    const parts = [{ text: job.text }, ...(job.params ? [{ data: job.params }] : [])];
    const stream = answers
      ? send(client, [{ text: job.answer }], { cursor: kept.cursor }, kept.task)
      : starts
        ? send(client, parts, { agent: job.agent })
        : subscribe(client, job.execution ?? kept.task.taskId, kept.cursor);
    answers = false;
    if (!(await read(stream, kept)) || TERMINAL.includes(kept.state)) continue;
    say({ at: "asked", prompt: kept.prompt });
    if (job.waits) await lines.next();
    answers = "answer" in job;
  }
  return kept.outcome();
}
