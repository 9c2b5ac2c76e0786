import { useState } from "react";

/** What an agent asks: approval, a choice, a text; a form is answered as JSON here. */
export function Question({ input, onAnswer }) {
  const [isSent, setIsSent] = useState(false);

  async function answer(value) {
    setIsSent(true);
    if (!(await onAnswer(value))) setIsSent(false);
  }

  return (
    <section className="card question" aria-label="Question">
      <h3>{input.prompt}</h3>
      <fieldset disabled={isSent}>
        {input.kind === "approval" && <Approval onAnswer={answer} />}
        {input.kind === "choice" && <Choice options={input.options ?? []} onAnswer={answer} />}
        {(input.kind === "text" || input.kind === "form") && <Written kind={input.kind} onAnswer={answer} />}
      </fieldset>
    </section>
  );
}

function Approval({ onAnswer }) {
  return (
    <>
      <button className="primary" onClick={() => onAnswer(true)}>
        Approve
      </button>
      <button onClick={() => onAnswer(false)}>Decline</button>
    </>
  );
}

function Choice({ options, onAnswer }) {
  return options.map((option) => (
    <button key={option} onClick={() => onAnswer(option)}>
      {option}
    </button>
  ));
}

function Written({ kind, onAnswer }) {
  const [text, setText] = useState("");
  const value = kind === "form" ? parsed(text) : text;
  return (
    <>
      <textarea aria-label="Answer" value={text} onChange={(event) => setText(event.target.value)} />
      <button className="primary" disabled={value === undefined || text === ""} onClick={() => onAnswer(value)}>
        Answer
      </button>
    </>
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
