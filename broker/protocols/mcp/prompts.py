"""Prompts: the examples that agents announce, with what a user fills in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from broker.protocols.mcp.content import text
from broker.protocols.mcp.rpc import INVALID_PARAMS, Json, McpError
from broker.protocols.mcp.tools import tool_name
from emitter.store.announcements import AgentInfo, Example, ExampleFile

_HOLE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]{0,63})\}")
ARGUMENTS = "arguments"
"""The key under which a client is asked for what is missing."""


class Prompt:
    """An example of an agent."""

    def __init__(self, name: str, agent: AgentInfo, example: Example) -> None:
        self.name = name
        self._agent = agent
        self._example = example
        places = [example.task, *(file.uri or "" for file in example.files)]
        self.arguments = list(dict.fromkeys(_HOLE.findall("\n".join(places))))

    def listed(self) -> Json:
        about = self._example.description or f"An example for the agent {self._agent.name}: {self._example.task}"
        arguments = [{"name": name, "required": True} for name in self.arguments]
        return {"name": self.name, "description": about[:500], **({"arguments": arguments} if arguments else {})}

    def missing(self, given: Json) -> list[str]:
        return [name for name in self.arguments if not isinstance(given.get(name), str)]

    def question(self, missing: list[str]) -> Json:
        """What a client is asked for what is missing."""
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in missing}, "required": missing}
        message = f"What should stand for {', '.join(missing)} in: {self._example.task}"
        params = {"mode": "form", "message": message, "requestedSchema": schema}
        return {"method": "elicitation/create", "params": params}

    def filled(self, given: Json) -> Json:
        """The messages. The files come first."""
        task = _fill(self._example.task, given)
        asked = text(f"Use the tool {tool_name(self._agent.name)} for this task: {task}")
        contents = [*(self._file(file, given) for file in self._example.files), asked]
        return {
            "description": self._example.description or self._agent.description or self.name,
            "messages": [{"role": "user", "content": content} for content in contents],
        }

    def _file(self, file: ExampleFile, given: Json) -> Json:
        kind = file.media_type.partition("/")[0]
        if file.data is not None and kind in ("image", "audio"):
            return {"type": kind, "data": file.data, "mimeType": file.media_type}
        uri = _fill(file.uri or f"runcast://agents/{self._agent.name}/{self.name}", given)
        held = {"blob": file.data} if file.data is not None else {"text": file.text or ""}
        return {"type": "resource", "resource": {"uri": uri, "mimeType": file.media_type, **held}}


def _fill(template: str, given: Json) -> str:
    return _HOLE.sub(lambda hole: str(given.get(hole[1], hole[0])), template)


def prompts_of(agents: Iterable[AgentInfo]) -> dict[str, Prompt]:
    """By name, in a fixed order. An example without a name has its agent's, with a number."""
    found: dict[str, Prompt] = {}
    for agent in agents:
        for number, example in enumerate(agent.examples, 1):
            name = example.name or f"{agent.name}_{number}"
            name = name if name not in found else f"{agent.name}_{name}"
            found[name] = Prompt(name, agent, example)
    return found


def prompt_named(agents: Iterable[AgentInfo], name: str) -> Prompt:
    """Raises `McpError`."""
    prompt = prompts_of(agents).get(name)
    if prompt is None:
        raise McpError(INVALID_PARAMS, f"there is no prompt {name[:64]!r}", name=name[:64])
    return prompt
