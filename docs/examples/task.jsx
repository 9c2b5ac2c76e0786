import { RuncastProvider, useAgentExecution } from "@runcast/client/react";

function Task() {
  const { startExecution, cancelExecution, answerInput, isExecuting, state, error } = useAgentExecution({ agent: "asker" });
  if (error) return <p role="alert">{error.message}</p>;
  if (!isExecuting && !state) return <button onClick={() => startExecution("My text")}>Start</button>;
  return (
    <section>
      <h2>{state?.status ?? "starting"}</h2>
      <p>{state?.text}</p>
      {state?.openInputs.map(({ inputId, prompt }) => (
        <button key={inputId} onClick={() => answerInput(inputId, true)}>{prompt} Yes</button>
      ))}
      {isExecuting && <button onClick={() => cancelExecution()}>Cancel</button>}
    </section>
  );
}

export const App = ({ baseUrl, token }) => (
  <RuncastProvider baseUrl={baseUrl} token={token}>
    <Task />
  </RuncastProvider>
);
