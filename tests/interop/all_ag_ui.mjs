// A client of AG-UI: `HttpAgent`, with its verifier on. For `all_clients.mjs`.
import { HttpAgent } from "@ag-ui/client";
import { headers, isLost, lines, present, say, url } from "./all_given.mjs";

process.on("unhandledRejection", (error) => {
  if (!isLost(error)) throw error; // the client also rethrows a lost connection where nobody can catch it
});

/** The response. A lost connection is told only when all whole frames that were read have been applied, since the client
 * forgets the rest; the cursor is the last one's id. `seen.ids` are those of frames, over responses. */
function watched(response, seen) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let raw = "";
  Object.assign(seen, { applied: 0, wake: () => {} });
  const whole = () => raw.slice(0, raw.lastIndexOf("\n\n") + 2);
  const note = () => {
    const ids = [...whole().matchAll(/^id: (.*)$/gm)].map(([, id]) => id);
    seen.twice.push(...ids.filter((id) => seen.ids.includes(id)));
    seen.ids.push(...ids);
  };
  const pull = async (controller) => {
    try {
      const { done, value } = await reader.read();
      if (done) return void (note(), controller.close());
      raw += decoder.decode(value, { stream: true });
      controller.enqueue(value);
    } catch (error) {
      const came = whole().match(/^data: /gm).length;
      while (seen.applied < came) await new Promise((done) => (seen.wake = done));
      note();
      controller.error(error);
    }
  };
  return new Response(new ReadableStream({ pull, cancel: () => reader.cancel() }), response);
}

function agent(job, leg, kept) {
  const made = new HttpAgent({
    url: `${url(leg)}/ag-ui${job.agent ? `/${job.agent}` : ""}`,
    threadId: kept.thread,
    headers,
    initialMessages: kept.messages,
    initialState: kept.state,
    fetch: async (...request) => {
      const response = await fetch(...request);
      return response.ok ? watched(response, kept.seen) : response;
    },
  });
  made.pendingInterrupts = kept.interrupts;
  made.subscribe({
    onEvent: ({ event }) => {
      kept.events.push(event);
      if (event.type === "MESSAGES_SNAPSHOT") kept.seen.ids = []; // all is told again
      kept.seen.applied += 1;
      kept.seen.wake();
    },
    onRunFinishedEvent: (finished) => void kept.results.push(finished),
  });
  return made;
}

export async function follow(job, number) {
  const kept = {
    thread: job.thread ?? `thread-${number}`,
    messages: [{ id: "u1", role: "user", content: job.text }],
    state: { theirs: 1 },
    interrupts: [],
    events: [],
    results: [],
    prompts: [],
    seen: { ids: [], twice: [] },
  };
  let leg = 0;
  let request = { runId: job.execution, forwardedProps: job.params };
  for (;;) {
    const it = agent(job, leg++, kept);
    const error = await it.runAgent(request).then(
      () => null,
      (thrown) => thrown,
    );
    Object.assign(kept, { messages: it.messages, state: it.state, interrupts: it.pendingInterrupts });
    if (error !== null) {
      if (kept.events.at(-1)?.type === "RUN_ERROR" || error.status) throw error;
      const cursor = kept.seen.ids.at(-1);
      say({ at: "lost", how: String(error), cursor });
      const { runId } = kept.events.find((event) => event.type === "RUN_STARTED");
      request = { runId, forwardedProps: { ...job.params, cursor } };
    } else if (kept.interrupts.length > 0) {
      kept.prompts.push(...kept.interrupts.map((each) => each.message));
      say({ at: "asked", prompt: kept.interrupts[0].message, text: textOf(kept.messages) });
      if (job.waits) await lines.next();
      const answers = kept.interrupts.map(({ id }) => ({ interruptId: id, status: "resolved", payload: job.answer }));
      request = { resume: answers };
    } else {
      return outcome(kept);
    }
  }
}

function textOf(messages) {
  const said = messages.filter((message) => message.role === "assistant");
  return said.map((message) => message.content ?? "").join("");
}

/** Messages and state are as the client has them; of events, those after the last attempt began. */
function outcome(kept) {
  const { messages, state, results } = kept;
  const last = kept.events.findLastIndex((event) => event.type === "CUSTOM" && event.name === "execution:superseded");
  const rewound = kept.events.findLastIndex((event) => event.type === "MESSAGES_SNAPSHOT");
  const events = kept.events.slice(Math.max(last, rewound) + 1);
  const of = (role) => messages.filter((message) => message.role === role);
  const failed = new Set(
    kept.events.filter((event) => event.type === "TOOL_CALL_RESULT" && event.metadata?.isError).map((event) => event.toolCallId),
  );
  const answers = Object.fromEntries(of("tool").map((message) => [message.toolCallId, message.content]));
  const custom = (name) => events.filter((event) => event.type === "CUSTOM" && event.name.startsWith(name));
  const made = {};
  for (const { value } of custom("artifact")) made[value.artifactId] = (value.append ? made[value.artifactId] : "") + value.text;
  const { execution } = state;
  return {
    status: execution.status,
    text: textOf(messages),
    tools: of("assistant").flatMap((message) => message.toolCalls ?? []).map(({ id, function: called }) => ({
      name: called.name,
      params: JSON.parse(called.arguments),
      ...(failed.has(id) ? { error: answers[id] } : { result: parsed(answers[id]) }),
    })),
    result: results.at(-1).result,
    partials: of("activity")
      .filter((each) => each.activityType === "PARTIAL_RESULT" && "result" in each.content)
      .map((each) => each.content.result),
    artifacts: made,
    phases: execution.phases.filter((phase) => phase.status === "complete").map((phase) => phase.name),
    thoughts: of("reasoning").map((message) => message.content).filter((text) => !text.startsWith("void: ")),
    specialists: execution.specialists.filter((each) => each.status === "complete").map((each) => each.specialist).sort(),
    customs: custom("custom:").map((event) => event.name),
    usage: execution.usage && present(execution.usage),
    attempt: execution.attempt,
    prompts: kept.prompts,
    progress: execution.progress?.progress,
    state: execution,
    theirs: state.theirs,
    twice: kept.seen.twice,
    ended: results.at(-1).outcome,
  };
}

function parsed(content) {
  try {
    return JSON.parse(content);
  } catch {
    return content;
  }
}
