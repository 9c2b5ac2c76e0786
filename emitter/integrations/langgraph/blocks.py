"""What a message or chunk of a language model is made of, in whichever of the providers' forms it has: text, reasoning,
calls of tools that the provider runs itself with their results, and media. Pure.

LangChain's own form (`output_version="v1"`) is read, and what Anthropic, OpenAI (chat and responses), Bedrock, Google,
DeepSeek and their like send through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from langchain_core.messages import AIMessage

CALLS = {"server_tool_call", "server_tool_call_chunk", "server_tool_use", "mcp_tool_use"}
"""Of a call there comes the beginning, then perhaps its arguments in pieces, then perhaps its result."""
WHOLE_CALLS = {"web_search_call", "file_search_call", "code_interpreter_call", "mcp_call"}
"""Of OpenAI: a call that has ended, with what came of it. The others of that form are for the client to run."""
OUTCOMES = ("results", "outputs", "output")
ABOUT = ("id", "type", "status", "index", "error", *OUTCOMES)
"""What is no argument of a whole call."""
MEDIA = {"image": "image/png", "image_url": "image/png", "audio": "audio/wav", "video": "video/mp4"}
"""And the type of media that do not name theirs."""
FILES = {"file", "media", "document"}


class Part(NamedTuple):
    kind: Literal["text", "reasoning"]
    text: str


class Use(NamedTuple):
    """A call begins. `index` is the block's, by which more arguments are known."""

    id: str
    name: str
    args: Any
    index: Any = None


class Arguments(NamedTuple):
    """More of a call's arguments, as JSON in pieces."""

    index: Any
    json: str


class Outcome(NamedTuple):
    """What came of a call."""

    id: str
    result: Any
    error: str | None = None


class Media(NamedTuple):
    media_type: str
    url: str
    """A data URL, if it came by value."""
    name: str | None = None


Piece = Part | Use | Arguments | Outcome | Media
Block = Mapping[str, Any]


def pieces(message: AIMessage) -> Iterator[Piece]:
    more = message.additional_kwargs
    yield from _part("reasoning", more.get("reasoning_content"))  # DeepSeek, Qwen, Groq, Ollama
    blocks = [message.content] if isinstance(message.content, str) else message.content
    is_refused = False
    for block in blocks:
        is_refused = is_refused or (isinstance(block, Mapping) and block.get("type") == "refusal")
        yield from _part("text", block) if isinstance(block, str) else _of_block(block)
    if not is_refused:
        yield from _part("text", more.get("refusal"))  # OpenAI's chat
    if isinstance(audio := more.get("audio"), Mapping):
        yield from _part("text", audio.get("transcript"))


def _of_block(block: Block) -> Iterable[Piece]:
    kind = str(block.get("type"))
    match kind:
        case "text" | "refusal":
            return _part("text", block.get(kind))
        case "thinking":  # Anthropic
            return _part("reasoning", block.get("thinking"))
        case "reasoning_content":  # Bedrock
            content = block.get(kind)
            return _part("reasoning", content.get("text") if isinstance(content, Mapping) else content)
        case "reasoning":  # LangChain's own form, and OpenAI's
            summary = [str(item.get("text") or "") for item in block.get("summary") or () if isinstance(item, Mapping)]
            return _part("reasoning", block.get("reasoning") or "".join(summary))
        case "non_standard":
            inner = block.get("value")
            return _of_block(inner) if isinstance(inner, Mapping) and inner.get("type") != kind else ()
        case "image_generation_call":  # OpenAI
            return _media({**block, "base64": block.get("result"), "mime_type": _format(block)}, "image/png")
    return _of_call(kind, block) or _of_media(kind, block)


def _part(kind: Literal["text", "reasoning"], said: Any) -> Iterator[Part]:
    if _is_text(said):
        yield Part(kind, said)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


# --- tools that the provider runs ------------------------------------------------------------------------------------


def _of_call(kind: str, block: Block) -> list[Piece]:
    if kind in WHOLE_CALLS:
        return _whole_call(kind, block)
    if kind in CALLS and block.get("id"):
        args = block.get("args", block.get("input")) or block.get("partial_json")
        extras = block.get("extras")
        name = extras.get("tool_name") if isinstance(extras, Mapping) else None  # of a remote MCP server
        return [Use(str(block["id"]), str(name or block.get("name") or kind), args or "", block.get("index"))]
    if kind in CALLS or kind == "input_json_delta":
        json = block.get("partial_json") or block.get("args")
        return [Arguments(block.get("index"), json)] if isinstance(json, str) else []
    return _result(block) if kind.endswith("tool_result") else []


def _whole_call(kind: str, block: Block) -> list[Piece]:
    id_ = str(block.get("id") or kind)
    args = {name: value for name, value in block.items() if name not in ABOUT}
    name = str(args.pop("name", None) or kind.removesuffix("_call"))
    results = {name: block[name] for name in OUTCOMES if block.get(name) is not None}
    result = next(iter(results.values())) if len(results) == 1 else results or None
    failed = block.get("error") or ("failed" if block.get("status") == "failed" else None)
    return [Use(id_, name, args), Outcome(id_, result, None if failed is None else _json(failed))]


def _result(block: Block) -> list[Piece]:
    id_ = block.get("tool_call_id") or block.get("tool_use_id")
    content = block.get("output", block.get("content"))
    inner = content if isinstance(content, Mapping) else {}
    error = inner.get("error_code") if str(inner.get("type")).endswith("_error") else None
    if error is None and (block.get("status") == "error" or block.get("is_error")):
        error = "failed" if content is None else content
    return [Outcome(str(id_), content, None if error is None else _json(error))] if id_ else []


def arguments(given: Any) -> Any:
    """The arguments of a call, which may have come as JSON."""
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given) if given else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return given


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()


# --- media -----------------------------------------------------------------------------------------------------------


def _of_media(kind: str, block: Block) -> Iterable[Media]:
    if kind not in MEDIA and kind not in FILES:
        return ()
    if kind == "image_url":
        given = block.get(kind)
        return _media({"url": given.get("url") if isinstance(given, Mapping) else given}, MEDIA[kind])
    source = block.get("source")  # Anthropic
    given = {**block, **source} if isinstance(source, Mapping) else block
    return _media(given, MEDIA.get(kind, "application/octet-stream"))


def _media(given: Block, media_type: str) -> Iterator[Media]:
    named = given.get("mime_type") or given.get("media_type")
    type_ = named if _is_text(named) else media_type
    value = given.get("base64") or given.get("data")
    url = given.get("url") or given.get("file_uri") or (f"data:{type_};base64,{value}" if _is_text(value) else None)
    if isinstance(url, str) and url.startswith("data:"):
        type_ = url[5:].partition(",")[0].partition(";")[0] or type_
    if _is_text(url):
        name = given.get("filename") or given.get("name")
        yield Media(str(type_), str(url), name if _is_text(name) else None)


def _format(block: Block) -> str | None:
    return f"image/{block['output_format']}" if _is_text(block.get("output_format")) else None
