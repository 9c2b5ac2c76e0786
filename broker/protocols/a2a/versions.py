"""Which version of the protocol a request speaks (specification 1.0, section 3.6)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from aiohttp import web

from broker.protocols.a2a.errors import VERSION, A2AError

Family = Literal["0.3", "1.0"]
HEADER = "A2A-Version"
OLD: Family = "0.3"
NEW: Family = "1.0"
SPOKEN = ("0.2", "0.3", "1.0")
METHODS: dict[str, tuple[str | None, str]] = {
    "send": ("message/send", "SendMessage"),
    "stream": ("message/stream", "SendStreamingMessage"),
    "get": ("tasks/get", "GetTask"),
    "list": (None, "ListTasks"),
    "cancel": ("tasks/cancel", "CancelTask"),
    "subscribe": ("tasks/resubscribe", "SubscribeToTask"),
    "set_push": ("tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig"),
    "get_push": ("tasks/pushNotificationConfig/get", "GetTaskPushNotificationConfig"),
    "list_push": ("tasks/pushNotificationConfig/list", "ListTaskPushNotificationConfigs"),
    "delete_push": ("tasks/pushNotificationConfig/delete", "DeleteTaskPushNotificationConfig"),
    "card": ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard"),
}
"""What is done → the method's name until 0.3, if it has one, and since 1.0."""

_VERSION = re.compile(r"(\d{1,3}\.\d{1,3})(?:\.\d{1,6})?\Z", re.ASCII)


def version_of(request: web.Request, spoken: Collection[str] = SPOKEN) -> Family:
    """What the client says it speaks: nothing means 0.3, and patches never matter. Raises `A2AError`."""
    text = request.headers.get(HEADER) or request.query.get(HEADER) or OLD
    match = _VERSION.match(text.strip())
    if match is None or match[1] not in spoken:
        detail = f"version {text[:32]!r} is not spoken here"
        raise A2AError(VERSION, detail, supportedVersions=", ".join(spoken))
    return NEW if match[1].startswith("1.") else OLD
