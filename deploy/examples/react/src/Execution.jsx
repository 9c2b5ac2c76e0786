// Each part selects its slice of the store, and renders only if the slice has changed.
import { useAgentStore } from "@runcast/client/store";
import { useEffect, useRef } from "react";
import { InputForm } from "./InputForm.jsx";
import { brief, PHASES, seconds, STATES } from "./labels.js";

export function Connection() {
  const { phase, lastEventId, latencyMs, reconnects, error } = useAgentStore((store) => store.connection);
  const details = [`after ${lastEventId ?? "the beginning"}`, `${reconnects} reconnects`];
  if (latencyMs !== null) details.push(`${latencyMs} ms`);
  return (
    <p className={`connection ${phase}`} title={details.join(" · ")} role="status">
      <span className="dot" aria-hidden="true" />
      {PHASES[phase]}
      {error && <span className="hint">{error.message}</span>}
    </p>
  );
}

export function Execution({ run }) {
  return (
    <article>
      <Head run={run} />
      <Plan />
      {run.state?.openInputs.map((input) => (
        <InputForm key={input.inputId} input={input} onAnswer={(value) => run.answerInput(input.inputId, value)} />
      ))}
      <Specialists />
      <div className="columns">
        <Thoughts />
        <Tools />
      </div>
      <Text />
    </article>
  );
}

function Head({ run }) {
  const execution = useAgentStore((store) => store.currentExecution);
  const usage = useAgentStore((store) => store.usage);
  if (!execution) return null;
  return (
    <section className="head">
      <div>
        <p className="hint">{execution.agent}</p>
        <h2>{execution.task}</h2>
        <p className="facts">
          <span className={`badge ${execution.status}`}>{STATES[execution.status]}</span>
          {execution.attempt > 1 && <span>attempt {execution.attempt}</span>}
          {execution.duration !== null && <span>{seconds(execution.duration)}</span>}
          {usage && <span>{usage.totalTokens.toLocaleString("en")} tokens</span>}
        </p>
      </div>
      {run.isExecuting && (
        <button className="danger" onClick={() => run.cancelExecution("cancelled by hand")}>
          Cancel
        </button>
      )}
    </section>
  );
}

function Plan() {
  const phases = useAgentStore((store) => store.phases);
  const progress = useAgentStore((store) => store.progress);
  if (!phases.length && !progress) return null;
  return (
    <section className="card">
      <ol className="phases">
        {phases.map(({ id, name, status, duration }) => (
          <li key={id} className={status} aria-current={status === "running" ? "step" : undefined}>
            {name}
            <span className="hint">{status === "complete" || status === "interrupted" ? took(status, duration) : ""}</span>
          </li>
        ))}
      </ol>
      {progress && (
        <>
          <progress max="100" value={progress.progress} aria-label="Progress" />
          <p className="hint">{progress.currentAction ?? " "}</p>
        </>
      )}
    </section>
  );
}

function Specialists() {
  const specialists = useAgentStore((store) => store.specialists);
  if (!specialists.length) return null;
  return (
    <section className="specialists" aria-label="Specialists">
      {specialists.map(({ specialist, status, task, progress, currentAction, summary }) => (
        <div className="card" key={specialist}>
          <h3>{specialist}</h3>
          <p className="hint">{summary ?? (status === "interrupted" ? status : (currentAction ?? task))}</p>
          <progress
            max="100"
            value={status === "complete" ? 100 : (progress ?? 0)}
            aria-label={`${specialist}'s progress`}
          />
        </div>
      ))}
    </section>
  );
}

function Thoughts() {
  const steps = useAgentStore((store) => store.thinkingSteps);
  if (!steps.length) return null;
  return (
    <Steps title="Thinking" items={steps}>
      {steps.map(({ thought }, index) => (
        <li key={index}>{thought}</li>
      ))}
    </Steps>
  );
}

function Tools() {
  const tools = useAgentStore((store) => store.tools);
  if (!tools.length) return null;
  return (
    <Steps title="Tools" items={tools}>
      {tools.map(({ callId, toolName, params, status, duration, result, error }) => (
        <li key={callId} className={status}>
          <code>{toolName}</code> <span className="hint">{took(status, duration)}</span>
          <br />
          <span className="hint">{brief(error ?? (status === "complete" ? result : params))}</span>
        </li>
      ))}
    </Steps>
  );
}

function took(status, duration) {
  if (duration !== null) return seconds(duration);
  return status === "running" ? "…" : status;
}

/** A growing list that stays at its end unless the user scrolls up. */
function Steps({ title, items, children }) {
  const list = useRef(null);
  const isAway = useRef(false);
  useEffect(() => {
    if (!isAway.current) list.current.scrollTop = list.current.scrollHeight;
  }, [items]);

  function onScroll({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) {
    isAway.current = scrollHeight - scrollTop - clientHeight > 40;
  }

  return (
    <section className="card">
      <h3>{title}</h3>
      <ol className="steps" ref={list} onScroll={onScroll} tabIndex={0} aria-label={title}>
        {children}
      </ol>
    </section>
  );
}

function Text() {
  const text = useAgentStore((store) => store.text);
  if (!text) return null;
  return (
    <section className="card">
      <h3>Text</h3>
      <div className="text">{text}</div>
    </section>
  );
}
