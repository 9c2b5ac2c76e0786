#!/usr/bin/env bash
# `addToolApprovalResponse` of the AI SDK answers the first message that asks with this id, not the newest one.
#
# Seen with ai 6.0.326 and 7.0.173, Node 20.20. A server that is still waiting for an approval asks again in the next
# message of the chat, with the id that it has for it. The page shows the newest message, the user says yes there, and the
# page calls `addToolApprovalResponse` with that id: the part in the old message becomes `approval-responded`, that in the
# newest one stays `approval-requested`, and with `lastAssistantMessageIsCompleteWithApprovalResponses` nothing is sent:
# the chat waits for ever, without an error. A good guess would have been that the last message is answered, which is the
# one that is looked at to decide whether to send. So each time that something is asked again it needs an id of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund --legacy-peer-deps ai6@npm:ai@6.0.326 ai7@npm:ai@7.0.173 zod@4.1.12
cat >try.mjs <<'JS'
import assert from "node:assert";

for (const name of ["ai6", "ai7"]) {
  const { AbstractChat, lastAssistantMessageIsCompleteWithApprovalResponses } = await import(name);

  class State {
    status = "ready";
    error = undefined;
    constructor(messages) {
      this.messages = messages;
    }
    pushMessage = (message) => void (this.messages = [...this.messages, message]);
    popMessage = () => void (this.messages = this.messages.slice(0, -1));
    replaceMessage = (at, message) => void (this.messages = this.messages.with(at, message));
    snapshot = (value) => structuredClone(value);
  }
  class Chat extends AbstractChat {
    constructor({ messages, ...init }) {
      super({ ...init, state: new State(messages) });
    }
  }

  const asking = (toolCallId) => ({
    type: "dynamic-tool",
    toolName: "publish",
    toolCallId,
    state: "approval-requested",
    input: {},
    approval: { id: "approval-1" },
  });
  let sent = 0;
  const chat = new Chat({
    messages: [
      { id: "u1", role: "user", parts: [{ type: "text", text: "publish it" }] },
      { id: "a1", role: "assistant", parts: [{ type: "step-start" }, asking("call-1")] },
      { id: "u2", role: "user", parts: [{ type: "text", text: "well?" }] },
      { id: "a2", role: "assistant", parts: [{ type: "step-start" }, asking("call-2")] },
    ],
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
    transport: { sendMessages: async () => ((sent += 1), new ReadableStream({ start: (c) => c.close() })) },
  });
  await chat.addToolApprovalResponse({ id: "approval-1", approved: true });
  await new Promise((done) => setTimeout(done, 200));
  const states = [1, 3].map((at) => chat.messages[at].parts[1].state);
  console.log(name, states, "requests:", sent);
  assert.deepEqual([states, sent], [["approval-responded", "approval-requested"], 0]);
}
JS
timeout 60 node --no-warnings try.mjs
