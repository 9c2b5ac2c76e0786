import { useAgentFeed } from "@runcast/client/react";
import { STATES } from "./labels.js";

export function Executions({ selected, onSelect }) {
  const { executions, isLoaded, error, reconnect } = useAgentFeed({ limit: 30 });
  return (
    <nav aria-label="Executions">
      <h2>Executions</h2>
      {error && (
        <p className="alert" role="alert">
          {error.message} <button onClick={reconnect}>Try again</button>
        </p>
      )}
      {isLoaded && !executions.length && <p className="hint">None yet.</p>}
      <ul className="executions">
        {executions.map((execution) => (
          <li key={execution.executionId}>
            <button aria-current={execution.executionId === selected} onClick={() => onSelect(execution.executionId)}>
              <span className={`dot ${execution.state}`} aria-hidden="true" />
              <span className="task">
                <bdi>{execution.task}</bdi>
              </span>
              <span className="hint">
                {execution.agent} · {STATES[execution.state]}
                {execution.progress !== null && ` · ${Math.round(execution.progress)} %`}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </nav>
  );
}
