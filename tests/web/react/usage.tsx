// What an application in TypeScript writes; compiled by types.mjs against the declarations, never run.
import { RuncastClient } from "@runcast/client";
import {
  RuncastProvider,
  useAgentExecution,
  useAgentFeed,
  useAgentSSE,
  useAgentTree,
  useRuncast,
} from "@runcast/client/react";
import { createAgentStore, useAgentStore, useStoredExecution } from "@runcast/client/store";

function Story({ executionId }: { executionId: string | null }) {
  const run = useAgentExecution({ agent: "analyst", executionId });
  const watched = useAgentSSE(executionId, {
    mode: "shared",
    onEvent: (event) => {
      if (event.type === "message:delta") console.log(event.id, event.data.delta.length);
    },
  });
  const { executions } = useAgentFeed({ limit: 10 });
  const { tree } = useAgentTree(executionId);
  const below: number | undefined = tree?.children.filter((child) => child.state === "running").length;
  useStoredExecution(run.executionId);
  const text: string = useAgentStore((store) => store.text);
  const names: string[] = useAgentStore((store) => store.tools.map((tool) => tool.toolName));
  const told: Promise<boolean> = useAgentStore((store) => store.sendMessage)("longer");
  const taken: boolean = useAgentStore((store) => store.userMessages).some((message) => message.state === "taken");
  const client: RuncastClient = useRuncast();
  const said: Promise<boolean> = run.sendMessage({ text: "shorter", mode: "interrupt" });
  const ids: Promise<string> = said.then(() => client.sendMessage("ex_1", "shorter")).then((sent) => sent.messageId);
  // @ts-expect-error: the state is null until something is known of an execution
  watched.state.status;
  // @ts-expect-error: there is no such slice
  useAgentStore((store) => store.thoughts);
  return (
    <button onClick={() => run.startExecution({ task: text, params: { pace: 0 } })} disabled={run.isExecuting}>
      {names} {run.state?.userMessages.length} {executions[0]?.openInputs[0]?.prompt} {watched.status.phase} {client.baseUrl} {run.error?.message} {below}
    </button>
  );
}

const useAnother = createAgentStore({ maxSteps: 10 });
const unfollow: () => void = useAnother.getState().followExecution(new RuncastClient(), "ex_1");
unfollow();

export const page = (
  <RuncastProvider token={async ({ refresh }) => (refresh ? "new" : "old")}>
    <Story executionId={null} />
  </RuncastProvider>
);
