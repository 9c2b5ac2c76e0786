"""What is done with the params of a request, by the names of `versions.METHODS`; the same in every binding."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from broker.protocols.a2a.calls import Call, Calls
from broker.protocols.a2a.card import Cards

Operation = Callable[[Call, dict[str, Any]], Awaitable[web.StreamResponse]]


def operations(calls: Calls, cards: Cards) -> Mapping[str, Operation]:
    """Each raises what `Calls` does."""

    async def send(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.send(call, call.wire.read_send(params), streams=False)

    async def stream(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.send(call, call.wire.read_send(params), streams=True)

    async def get(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.get(call, call.wire.read_ask(params))

    async def listing(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.list(call, call.wire.read_list(params))

    async def cancel(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.cancel(call, call.wire.read_ask(params))

    async def subscribe(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await calls.subscribe(call, call.wire.read_ask(params))

    async def card(call: Call, _: dict[str, Any]) -> web.StreamResponse:
        return call.respond(await cards.extended(call.request, call.agent, is_new=call.wire.is_typed))

    push = dict.fromkeys(("set_push", "get_push", "list_push", "delete_push"), calls.push)
    named = {"send": send, "stream": stream, "get": get, "list": listing, "cancel": cancel, "subscribe": subscribe}
    return {**named, **push, "card": card}
