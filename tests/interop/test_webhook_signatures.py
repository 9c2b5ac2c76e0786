"""What is posted is verified with the official packages of two languages."""

from __future__ import annotations

import json

import pytest
from clients import needs_node, node
from standardwebhooks import Webhook

from broker.webhooks.sender import Sender
from tests.receivers import SECRET, Got, receiver

BODIES = (b'{"type":"t","data":{}}', b'{"type":"t","data":{"text":"\\u00e9\\ud83d\\ude00 \\\\ \\""}}')


async def posted(secret: str) -> list[Got]:
    async with receiver() as here, Sender(secret, ["127.0.0.1"], "r") as sender:
        for number, body in enumerate(BODIES):
            assert (await sender.post(here.url, f"msg_{number}", body, {})).taken
        return here.got


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")], ids=["with prefix", "without"])
async def test_python(secret: str) -> None:
    """With the secret in either form, whichever the edge was given."""
    for got in await posted(secret):
        for form in (SECRET, SECRET.removeprefix("whsec_")):
            assert Webhook(form).verify(got.raw, got.headers) == got.body


@needs_node
async def test_node() -> None:
    """And what was changed on the way is not taken."""
    got = await posted(SECRET)
    messages = [{"headers": each.headers, "body": each.raw.decode()} for each in got]
    forged = {**messages[0], "body": '{"type":"u","data":{}}'}
    seen = await node("webhook_verify.mjs", {"secret": SECRET, "messages": [*messages, forged]})
    assert seen == [*map(json.loads, BODIES), "No matching signature found"]
