import { RuncastProvider, useAgentExecution } from "@runcast/client/react";
import { useStoredExecution } from "@runcast/client/store";
import { Executions } from "./Executions.jsx";
import { useExecutionInAddress, useToken } from "./session.js";
import { SignIn } from "./SignIn.jsx";
import { Start } from "./Start.jsx";
import { Connection, Story } from "./Story.jsx";

export function App() {
  const [token, setToken] = useToken();
  if (!token) return <SignIn onToken={setToken} />;
  return (
    <RuncastProvider key={token} token={token}>
      <Desk onSignOut={() => setToken("")} />
    </RuncastProvider>
  );
}

function Desk({ onSignOut }) {
  const [executionId, setExecutionId] = useExecutionInAddress();
  const { startExecution, ...run } = useAgentExecution({ executionId });
  useStoredExecution(run.executionId); // what the parts of the story show; the stream is the same one

  async function start(request) {
    const started = await startExecution(request);
    if (started) setExecutionId(started);
  }

  return (
    <div className="desk">
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
        {run.executionId ? <Story run={run} /> : <Welcome />}
      </main>
    </div>
  );
}

function Welcome() {
  return (
    <section className="welcome">
      <h2>Nothing is shown yet</h2>
      <p>Start an agent, or choose an execution. Reload the page in the middle: it goes on where it was.</p>
    </section>
  );
}
