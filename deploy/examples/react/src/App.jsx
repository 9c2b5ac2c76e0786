import { RuncastProvider, useAgentExecution } from "@runcast/client/react";
import { useStoredExecution } from "@runcast/client/store";
import { Executions } from "./Executions.jsx";
import { useExecutionInAddress, useToken } from "./session.js";
import { SignIn } from "./SignIn.jsx";
import { Start } from "./Start.jsx";
import { Connection, Execution } from "./Execution.jsx";

export function App() {
  const [token, setToken] = useToken();
  if (!token) return <SignIn onToken={setToken} />;
  return (
    <RuncastProvider key={token} token={token}>
      <Workspace onSignOut={() => setToken("")} />
    </RuncastProvider>
  );
}

function Workspace({ onSignOut }) {
  const [executionId, setExecutionId] = useExecutionInAddress();
  const { startExecution, ...run } = useAgentExecution({ executionId });
  useStoredExecution(run.executionId); // for the parts of the page; they share one stream

  async function start(request) {
    const started = await startExecution(request);
    if (started) setExecutionId(started);
  }

  return (
    <div className="workspace">
      <header>
        <h1>Agents at work</h1>
        {run.executionId && <Connection />}
        <button className="quiet" onClick={onSignOut}>
          Sign out
        </button>
      </header>
      <aside>
        <Start onStart={start} isStarting={run.isStarting} />
        <Executions selected={run.executionId} onSelect={setExecutionId} />
      </aside>
      <main>
        {run.error && (
          <p className="alert" role="alert">
            {run.error.message}
          </p>
        )}
        {run.executionId ? <Execution run={run} /> : <Welcome />}
      </main>
    </div>
  );
}

function Welcome() {
  return (
    <section className="welcome">
      <h2>No execution selected</h2>
      <p>Start an agent, or select an execution. A reload of the page continues where it was.</p>
    </section>
  );
}
