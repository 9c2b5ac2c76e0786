"""Tells a chat what agents ask, and how they ended: a receiver of Runcast's webhooks.

    pip install aiohttp standardwebhooks
    export RUNCAST_WEBHOOK_SECRET=whsec_…                       # the edges have the same
    export CHAT_URL=https://hooks.slack.com/services/…          # an incoming webhook: Slack, Mattermost, Rocket.Chat, …
    python webhook_chat.py                                      # port 8080; a proxy with a certificate stands before it
    curl $RUNCAST_URL/api/agent/execute -H "Authorization: Bearer $RUNCAST_TOKEN" -H 'Content-Type: application/json' \\
      --data '{"task": "Survey ~/src", "webhook": {"url": "https://bot.example.com/runcast"}}'

A message is answered when the chat has it: if the chat is away, Runcast sends it again later. A message that comes
twice has the same `webhook-id`, and is told once.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from standardwebhooks import Webhook, WebhookVerificationError

WORDS = {
    "input:required": "❓ {id} asks: {prompt}",
    "execution:complete": "✅ {id} is done in {duration:.0f} s",
    "execution:error": "❌ {id} failed: {error}",
    "execution:cancelled": "🚫 {id} was cancelled",
}
REMEMBERED = 10_000


def text_of(event: dict[str, Any]) -> str | None:
    """What the chat is told; None for an event that it is not told of."""
    words = WORDS.get(event["type"])
    return None if words is None else words.format(id=event["executionId"], **event["data"])


class Receiver:
    def __init__(self, secret: str, chat_url: str) -> None:
        self._webhook = Webhook(secret)
        self._chat_url = chat_url
        self._told: OrderedDict[str, None] = OrderedDict()

    async def receive(self, request: web.Request) -> web.Response:
        try:
            message = self._webhook.verify(await request.read(), dict(request.headers))
        except WebhookVerificationError as error:
            raise web.HTTPUnauthorized(text=str(error)) from error
        message_id = request.headers["webhook-id"]
        if message_id not in self._told and (text := text_of(message["data"])) is not None:
            await self._tell(text)
            self._told[message_id] = None
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        return web.Response(status=204)

    async def _tell(self, text: str) -> None:
        try:
            async with ClientSession(timeout=ClientTimeout(10), raise_for_status=True) as session:
                await session.post(self._chat_url, json={"text": text})
        except (ClientError, TimeoutError) as error:
            raise web.HTTPBadGateway(text="the chat did not take it") from error


if __name__ == "__main__":
    receiver = Receiver(os.environ["RUNCAST_WEBHOOK_SECRET"], os.environ["CHAT_URL"])
    app = web.Application()
    app.add_routes([web.post("/runcast", receiver.receive)])
    web.run_app(app, host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ.get("PORT", "8080")))  # noqa: S104
