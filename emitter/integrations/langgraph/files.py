"""Files that came with a user's message, as LangChain's content blocks. Pure."""

from __future__ import annotations

from typing import Any

MEDIA = ("image", "audio", "video")


def with_blocks(messages: Any) -> Any:
    """A conversation as a chat's edge gives it, where a user's files are blocks of the message they came with. What is
    no such conversation stays as it is. An agent's own files stay beside its message: models take none from an agent.
    """
    return [_with_blocks(message) for message in messages] if isinstance(messages, list) else messages


def _with_blocks(message: Any) -> Any:
    if not (isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str)):
        return message
    files = message.get("attachments")
    if not (isinstance(files, list) and files and all(isinstance(file, dict) for file in files)):
        return message
    words = [{"type": "text", "text": message["content"]}] if message["content"] else []
    rest = {name: value for name, value in message.items() if name != "attachments"}
    return {**rest, "content": [*words, *(_block(file) for file in files)]}


def _block(file: dict[str, Any]) -> dict[str, Any]:
    media_type = file.get("mediaType") or ""
    kind = media_type.partition("/")[0]
    block: dict[str, Any] = {"type": kind if kind in MEDIA else "file", **_source(file)}
    if len(block) == 1:
        name = file.get("name") or media_type or "a file"
        return {"type": "text", "text": f"[{name} is not here: {file.get('omitted', 'unknown')}]"}
    if "/" in media_type:
        block["mime_type"] = media_type.partition(";")[0]
    return block | ({"extras": {"filename": file["name"]}} if file.get("name") else {})


def _source(file: dict[str, Any]) -> dict[str, str]:
    url, references = file.get("url"), file.get("references")
    if isinstance(url, str):
        header, _, coded = url.partition(",")
        is_held = header[:5].lower() == "data:" and header[-7:].lower() == ";base64"
        return {"base64": coded} if is_held else {"url": url}
    return {"file_id": next(iter(references.values()))} if isinstance(references, dict) and references else {}
