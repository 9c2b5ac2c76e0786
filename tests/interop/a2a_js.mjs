// The tour of `a2a_python_1.py` with @a2a-js/sdk: `a2a_js.mjs '{"sdk", "urls", "token", "binding", "version"}'`.
import { randomUUID } from "node:crypto";

const given = JSON.parse(process.argv[2]);
const isOld = given.sdk === "a2a-js-03"; // its objects are those of version 0.3
const sdk = await import(`${given.sdk}/client`);
const types = isOld ? null : await import(given.sdk);

const authorized = (url, options = {}) => {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${given.token}`);
  return fetch(url, { ...options, headers });
};

function factory() {
  const compat = isOld || given.version === "1.0" ? {} : { legacyCompat: { enabled: true } };
  const options = { fetchImpl: authorized, ...compat };
  const kinds = { JSONRPC: sdk.JsonRpcTransportFactory, "HTTP+JSON": sdk.RestTransportFactory };
  return new sdk.ClientFactory({
    ...(isOld ? sdk.ClientFactoryOptions.default : {}),
    transports: [new kinds[given.binding](options)],
    cardResolver: new sdk.DefaultAgentCardResolver({ ...options }),
  });
}

async function connect(url) {
  const resolver = new sdk.DefaultAgentCardResolver({ fetchImpl: authorized });
  const card = await resolver.resolve(url);
  if (isOld) {
    card.preferredTransport = given.binding;
  } else {
    card.supportedInterfaces = card.supportedInterfaces.filter(
      (each) => each.protocolVersion === given.version && each.protocolBinding === given.binding,
    );
  }
  return { card, client: await factory().createFromAgentCard(card) };
}

const file = { url: "https://files.example.com/a.pdf", raw: "iVBO/w==", filename: "a.pdf", mediaType: "application/pdf" };

/** A message with a file by reference, one by value, and data. */
function withFiles() {
  const { url, raw, filename, mediaType } = file;
  const params = request("look", "keeper");
  const parts = isOld
    ? [
        { kind: "file", file: { uri: url, name: filename, mimeType: mediaType } },
        { kind: "file", file: { bytes: raw, name: filename, mimeType: mediaType } },
        { kind: "data", data: { n: 1 } },
      ]
    : [{ url, filename, mediaType }, { raw, filename, mediaType }, { data: { n: 1 } }].map((part) => types.Part.fromJSON(part));
  params.message.parts.push(...parts);
  return params;
}

function request(text, agent, about = {}) {
  if (isOld) {
    const parts = [{ kind: "text", text }];
    const message = { kind: "message", role: "user", messageId: randomUUID(), parts, ...about };
    return { message, metadata: agent ? { agent } : undefined, configuration: { blocking: true } };
  }
  const parts = [{ text }];
  const message = { messageId: randomUUID(), role: "ROLE_USER", parts, ...about };
  return types.SendMessageRequest.fromJSON({ message, metadata: agent ? { agent } : undefined });
}

// --- the two shapes of one thing ---

const state = (status) =>
  isOld
    ? status.state.replace("-", "_")
    : types.taskStateToJSON(status.state).replace("TASK_STATE_", "").toLowerCase();

const content = (part) => {
  if (isOld) return part.kind === "text" ? part.text : part.kind === "data" ? part.data : part.file.uri;
  return part.content.value;
};

function unpack(event) {
  if (isOld) return [event.kind.replace("-", "_"), event];
  const { $case, value } = event.payload;
  return [$case.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value];
}

class Seen {
  kinds = [];
  states = [];
  generations = [];
  artifacts = {};

  take(event) {
    const [kind, value] = unpack(event);
    this.kinds.push(kind);
    if (kind === "task") {
      this.task = value;
      this.artifacts = artifactsOf(value);
    }
    if (kind === "artifact_update") {
      const id = value.artifact.artifactId;
      if (value.append && !(id in this.artifacts)) throw new Error(`added to nothing: ${id}`);
      this.artifacts[id] = [...(value.append ? this.artifacts[id] : []), ...value.artifact.parts.map(content)];
    } else {
      this.states.push(state(value.status));
      this.prompt = value.status.message?.parts.map(content).find((part) => typeof part === "string") ?? null;
    }
    this.generations.push(value.metadata.generation);
    this.cursor = value.metadata.cursor;
    return this;
  }

  outcome() {
    return { first: this.kinds[0], states: this.states, artifacts: joined(this.artifacts) };
  }
}

const artifactsOf = (task) =>
  Object.fromEntries((task.artifacts ?? []).map((artifact) => [artifact.artifactId, artifact.parts.map(content)]));

const joined = (artifacts) =>
  Object.fromEntries(
    Object.entries(artifacts).map(([id, parts]) => [
      id,
      parts.every((part) => typeof part === "string") ? parts.join("") : parts[0],
    ]),
  );

async function follow(client, params, until = () => false) {
  const seen = new Seen();
  for await (const event of client.sendMessageStream(params)) if (until(seen.take(event))) break;
  return seen;
}

async function errorOf(call) {
  try {
    await call();
  } catch (error) {
    return error.constructor.name === "Error" ? error.message : error.constructor.name;
  }
  return null;
}

// --- the tour ---

const { card, client } = await connect(given.urls[0]);
const { client: other } = await connect(given.urls[1]);
const out = { skills: card.skills.map((skill) => skill.id) };
const about = (task) => ({ taskId: task.id, contextId: task.contextId });
const one = (id) => (isOld ? { id } : { id, tenant: "" });

const told = await follow(client, request("t", "teller"));
out.told = told.outcome();
const task = await client.getTask(one(told.task.id));
out.got = { state: state(task.status), artifacts: joined(artifactsOf(task)) };

const sent = await client.sendMessage(request("t", "teller"));
out.blocking = [state((sent.task ?? sent.payload?.value ?? sent).status)];

const kept = await follow(client, withFiles());
out.files = kept.artifacts["runcast:result"][0];
const historyOf = ({ parts }) => parts.map((part) => (isOld ? part.kind : part.content.$case));
out.filesInHistory = historyOf((await client.getTask(one(kept.task.id))).history[0]).length;

const asked = await follow(client, request("t", "asker"));
out.asked = { state: asked.states.at(-1), prompt: asked.prompt };
out.mismatch = await errorOf(() => follow(client, request("perhaps", null, about(asked.task))));
out.answered = (await follow(other, request("Yes!", null, about(asked.task)))).outcome();

const working = await follow(client, request("t", "listener"), (seen) => seen.kinds.length === 2);
const said = request("shorter", null, about(working.task));
for (const each of [client, other]) await follow(each, said, () => true); // the second is a repeat
out.steered = (await follow(other, request("stop", null, about(working.task)))).outcome();

const begun = await follow(client, request("t", "sleeper"), (seen) => seen.kinds.length === 2);
out.deaf = await errorOf(() => follow(client, request("x", null, about(begun.task))));
const rest = new Seen();
const withCursor = { serviceParameters: { "Last-Event-ID": begun.cursor } };
for await (const event of other.resubscribeTask(one(begun.task.id), withCursor)) {
  rest.take(event);
  if (rest.generations.at(-1) === 4) {
    const cancelled = await client.cancelTask(one(begun.task.id));
    out.cancelled = state(cancelled.status);
  }
}
out.resumed = { before: begun.generations, after: rest.generations, state: rest.states.at(-1) };

out.missing = await errorOf(() => client.getTask(one("nobody")));
out.ended = await errorOf(() => client.cancelTask(one(told.task.id)));
console.log(JSON.stringify(out));
