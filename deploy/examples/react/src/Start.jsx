import { useRuncast } from "@runcast/client/react";
import { useEffect, useState } from "react";

export function Start({ onStart, isStarting }) {
  const agents = useAgents();
  const [name, setName] = useState("");
  const agent = agents.find((agent) => agent.name === name) ?? agents[0];

  function submit(event) {
    event.preventDefault();
    onStart({ agent: agent.name, task: new FormData(event.target).get("task") });
  }

  return (
    <form className="card" onSubmit={submit}>
      <label htmlFor="agent">Agent</label>
      <select id="agent" value={agent?.name ?? ""} onChange={(event) => setName(event.target.value)}>
        {agents.map(({ name }) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <p className="hint">{agent?.description ?? "No agent is registered: is a worker running?"}</p>
      <label htmlFor="task">Task</label>
      <input id="task" name="task" placeholder="/a/directory/of/code" required />
      <button className="primary" disabled={!agent || isStarting}>
        {isStarting ? "Starting…" : "Start"}
      </button>
    </form>
  );
}

function useAgents() {
  const client = useRuncast();
  const [agents, setAgents] = useState([]);
  useEffect(() => {
    let isShown = true;
    client.agents().then(
      (answer) => isShown && setAgents(answer.agents),
      () => {}, // the feed shows errors of the connection
    );
    return () => (isShown = false);
  }, [client]);
  return agents;
}
