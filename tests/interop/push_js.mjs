// The same as `push_python_1.py` with @a2a-js/sdk: `push_js.mjs '{"sdk", "urls", "token", "binding", "version", "hook"}'`.
import { randomUUID } from "node:crypto";

const given = JSON.parse(process.argv[2]);
const isOld = given.sdk === "a2a-js-03"; // its objects are those of version 0.3
const sdk = await import(`${given.sdk}/client`);

const authorized = (url, options = {}) => {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${given.token}`);
  return fetch(url, { ...options, headers });
};

async function connect(url) {
  const resolver = new sdk.DefaultAgentCardResolver({ fetchImpl: authorized });
  const card = await resolver.resolve(url);
  if (!card.capabilities.pushNotifications) throw new Error("not declared");
  if (isOld) {
    card.preferredTransport = given.binding;
  } else {
    card.supportedInterfaces = card.supportedInterfaces.filter(
      (each) => each.protocolVersion === given.version && each.protocolBinding === given.binding,
    );
  }
  const compat = isOld || given.version === "1.0" ? {} : { legacyCompat: { enabled: true } };
  const options = { fetchImpl: authorized, ...compat };
  const kinds = { JSONRPC: sdk.JsonRpcTransportFactory, "HTTP+JSON": sdk.RestTransportFactory };
  const factory = new sdk.ClientFactory({
    ...(isOld ? sdk.ClientFactoryOptions.default : {}),
    transports: [new kinds[given.binding](options)],
    cardResolver: new sdk.DefaultAgentCardResolver({ ...options }),
  });
  return factory.createFromAgentCard(card);
}

const config = (id, path, scheme) => ({
  id,
  url: given.hook + path,
  token: `of-${id}`,
  ...(scheme === undefined
    ? {}
    : isOld
      ? { authentication: { schemes: [scheme], credentials: "of-the-receiver" } }
      : { authentication: { scheme, credentials: "of-the-receiver" } }),
});

function request() {
  const message = isOld
    ? { kind: "message", role: "user", messageId: randomUUID(), parts: [{ kind: "text", text: "t" }] }
    : { messageId: randomUUID(), role: 1, parts: [{ content: { $case: "text", value: "t" } }], metadata: {}, extensions: [], referenceTaskIds: [] };
  const one = config("one", "/one", "Bearer");
  const configuration = isOld
    ? { blocking: false, pushNotificationConfig: one }
    : { returnImmediately: true, acceptedOutputModes: [], taskPushNotificationConfig: { tenant: "", taskId: "", ...one } };
  return { message, metadata: { agent: "asker" }, configuration };
}

const client = await connect(given.urls[0]);
const sent = await client.sendMessage(request());
const task = sent.task ?? sent;
const two = config("two", "/two");
const ofTask = isOld ? { taskId: task.id, pushNotificationConfig: two } : { tenant: "", taskId: task.id, ...two };
const made = await (isOld ? client.setTaskPushNotificationConfig(ofTask) : client.createTaskPushNotificationConfig(ofTask));
const flat = (each) => each.pushNotificationConfig ?? each;
const query = isOld ? { id: task.id, pushNotificationConfigId: "two" } : { tenant: "", taskId: task.id, id: "two" };
const all = isOld ? { id: task.id } : { tenant: "", taskId: task.id, pageSize: 0, pageToken: "" };
const ids = async () => {
  const listed = await client.listTaskPushNotificationConfig(all);
  return (listed.configs ?? listed).map((each) => flat(each).id).sort();
};
const out = { task: task.id, made: [flat(made).id, flat(made).url, flat(made).token ?? ""], listed: await ids() };
out.got = flat(await client.getTaskPushNotificationConfig(query)).url;
await client.deleteTaskPushNotificationConfig(query);
out.left = await ids();
const { TaskState } = isOld ? {} : await import(given.sdk);
const isAsked = ({ status }) => status.state === (isOld ? "input-required" : TaskState.TASK_STATE_INPUT_REQUIRED);
while (!isAsked(await client.getTask(isOld ? { id: task.id } : { id: task.id, tenant: "" }))) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await client.cancelTask({ id: task.id, tenant: "", metadata: undefined });
console.log(JSON.stringify(out));
