"""Interrupts as inputs: a person answers them.

The value of `interrupt(value)`: a text is the prompt; a mapping may say `prompt` (or `question`, `message`), `kind`,
`options`, `schema` and `expires_in` (seconds); actions to review are for `reviews`. Of anything else the JSON is the
prompt.
A value that is no text and names no kind may be answered by any JSON: a text that is an object, a list, true, false or
null in JSON is parsed.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, get_args

import msgspec
from langgraph.types import Interrupt, StateSnapshot

from emitter import tasks
from emitter.integrations.langgraph import reviews
from emitter.integrations.langgraph.phases import Asked
from emitter.integrations.langgraph.publish import Emitter
from emitter.integrations.langgraph.values import storable
from emitter.wire.inputs import ANY_JSON, InputKind
from emitter.wire.storable import text
from emitter.worker.agents import Context

PROMPT_CHARS = 4000
DIGEST_CHARS = 20
PROMPTS = ("prompt", "question", "message", "description")
KINDS = frozenset(get_args(InputKind))

Ask = reviews.Ask
"""`await ask(prompt, kind=…, …)`: arguments and errors of `AgentEmitter.ask`, but for the id of the input."""
OnInterrupt = Callable[[Interrupt, Ask], Awaitable[Any]]
"""Gets the answer to an interrupt, in the form that the graph continues with."""


async def ask_interrupt(interrupt: Interrupt, ask: Ask) -> Any:
    """Ask a person for the interrupt's answer, which `interrupt` then returns in the node."""
    decided = await reviews.decide(interrupt.value, interrupt.response_schema, ask)
    if decided is not None:
        return decided
    request = input_of(interrupt.value, interrupt.response_schema)
    answer = await ask(**request)
    return _meant(answer) if request.get("schema") == ANY_JSON and isinstance(answer, str) else answer


def _meant(answer: str) -> Any:
    """A number stays a text: a postcode or a name in figures is one."""
    try:
        value = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return answer
    return answer if isinstance(value, str | int | float) and not isinstance(value, bool) else value


def input_of(value: Any, response_schema: Any = None) -> dict[str, Any]:
    """The arguments for `ask`."""
    given = value if isinstance(value, Mapping) else {}
    schema, options = given.get("schema"), given.get("options")
    asked: dict[str, Any] = _of_schema(response_schema)
    if isinstance(schema, dict):
        asked |= {"kind": "form", "schema": schema}
    if isinstance(options, list | tuple) and options and all(isinstance(option, str) for option in options):
        asked |= {"kind": "choice", "options": list(options)}
    if given.get("kind") in KINDS:
        asked["kind"] = given["kind"]
    if "expires_in" in given:
        asked["expires_in"] = given["expires_in"]
    if not ("kind" in asked or isinstance(value, str) or response_schema):
        asked["schema"] = ANY_JSON
    return {"kind": "text", **asked, "prompt": _prompt(value, given)}


def _of_schema(schema: Any) -> dict[str, Any]:
    """Kind and schema from `interrupt(…, response_schema=…)`. Other types than objects the graph parses from a text."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("type") == "boolean":
        return {"kind": "approval"}
    if schema.get("type") == "object":
        return {"kind": "form", "schema": schema}
    return {}


def _prompt(value: Any, given: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return text(value)
    named = next((given[key] for key in PROMPTS if isinstance(given.get(key), str)), None)
    return text(named) if named else _json(value).decode()[:PROMPT_CHARS]


def _json(value: Any) -> bytes:
    return msgspec.json.encode(storable(value), order="sorted")


class InputAsker:
    """Requests the answers to a graph's interrupts, under ids by which a retry finds the answers.

    A graph whose checkpoints outlive its worker raises the same interrupt again, with the same id. Any other graph
    starts over; then only the place of the node is the same, and `run`, which numbers the graphs of an attempt. In both
    cases the request is a part of the id, so that an answer never belongs to another request.
    """

    def __init__(self, target: Context | Emitter, on_interrupt: OnInterrupt, run: str) -> None:
        self._ask = target.ask
        self._run = run
        self._on_interrupt = on_interrupt
        self._asked: Counter[str] = Counter()
        self.is_resumable = False
        """Whether an attempt goes on where an earlier one stopped."""

    async def answers(self, asked: Iterable[Asked]) -> dict[str, Any]:
        """Ask all at once; the answers by interrupt id. Raises what `ask` raises, and then cancels the other waits."""
        asking = {one.interrupt.id: asyncio.create_task(self._answer(one)) for one in asked}
        try:
            await asyncio.gather(*asking.values())
        finally:
            await tasks.end(asking.values())
        return {interrupt_id: task.result() for interrupt_id, task in asking.items()}

    async def _answer(self, asked: Asked) -> Any:
        origin = asked.interrupt.id if self.is_resumable else self._run + asked.place
        name, numbers = self._name(origin, asked.interrupt.value), itertools.count(1)

        def ask(prompt: str, **options: Any) -> Awaitable[Any]:
            number = next(numbers)
            return self._ask(prompt, input_id=name if number == 1 else f"{name}_{number}", **options)

        return await self._on_interrupt(asked.interrupt, ask)

    async def may_continue(self, state: StateSnapshot) -> bool:
        """Ask whether a graph may continue at a breakpoint."""
        prompt = f"Continue with {', '.join(state.next)}?"
        step = (state.metadata or {}).get("step")
        origin = state.config["configurable"]["checkpoint_id"] if self.is_resumable else f"{self._run}/{step}"
        answer = await self._ask(prompt, kind="approval", input_id=self._name(origin, prompt))
        return answer is True

    def _name(self, origin: str, value: Any) -> str:
        digest = hashlib.sha256(origin.encode() + b"\0" + _json(value)).hexdigest()[:DIGEST_CHARS]
        self._asked[digest] += 1
        return f"in_{digest}_{self._asked[digest]}"
