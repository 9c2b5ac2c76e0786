import { useState } from "react";

/** The form for an input of an agent: approval, choice or text; this example answers a form as JSON. */
export function InputForm({ input, onAnswer }) {
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
        {(input.kind === "text" || input.kind === "form") && <TextAnswer kind={input.kind} onAnswer={answer} />}
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

function TextAnswer({ kind, onAnswer }) {
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
