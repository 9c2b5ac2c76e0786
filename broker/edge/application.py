"""What answers the requests of the public port, made of the parts of an edge."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.auth import authenticator
from broker.auth.authenticator import Authenticator
from broker.base.metrics import Metrics
from broker.base.reasons import StreamProtocol
from broker.base.settings import Settings
from broker.base.version import version
from broker.edge.job_parts import JobParts
from broker.edge.openapi import build_openapi
from broker.edge.webhooks import Webhooks
from broker.executions.commands import Commands
from broker.http import errors
from broker.http.api import Api
from broker.http.gateway import MAX_BODY_BYTES, Gateway
from broker.http.responses import Responses
from broker.http.static import StaticFiles, sign_in_of
from broker.http.stream_door import Open
from broker.log.history import History
from broker.ops.stream import Ops
from broker.protocols.a2a.routes import A2A
from broker.protocols.ag_ui.routes import AgUi
from broker.protocols.ai_sdk.chunk_items import ChunkForms
from broker.protocols.ai_sdk.durable_routes import CHUNKS, DurableChats
from broker.protocols.ai_sdk.routes import AiSdk
from broker.protocols.durable_streams.items import EventForms
from broker.protocols.durable_streams.reading import EVENTS
from broker.protocols.durable_streams.routes import DurableStreams
from broker.protocols.item_streams import Forms
from broker.protocols.mcp.routes import Mcp
from broker.protocols.responses.errors import error_response
from broker.protocols.responses.routes import ResponsesApi
from broker.streams.admission import Admission
from broker.streams.service import Streams
from emitter.store.append import limits_of
from emitter.tracing.trace import Tracer
from emitter.wire.redact import Redactor

LOOPBACK = "127.0.0.1"


class Parts(NamedTuple):
    """What the routes are made of."""

    settings: Settings
    redis: Redis
    history: History
    authenticator: Authenticator
    admission: Admission
    streams: Streams
    ops: Ops
    responses: Responses
    jobs: JobParts
    webhooks: Webhooks
    metrics: Metrics
    tracer: Tracer


def application(parts: Parts) -> tuple[web.Application, Open]:
    """What answers requests, and what opens native streams."""
    settings, redis = parts.settings, parts.redis
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    authenticator.setup_cors(app, settings.cors_origins)
    errors.setup(app, {"/v1/": error_response})
    app.middlewares.append(parts.responses.middleware)
    commands = Commands(redis, parts.history, limits_of(settings), Redactor(settings.redact_keys))
    gateway = Gateway(
        settings, parts.authenticator, parts.admission, parts.streams, commands, parts.metrics, parts.tracer,
        parts.responses, parts.webhooks.policy,
    )  # fmt: skip
    openapi = msgspec.json.encode(build_openapi(version()))
    of_edge = (redis, parts.authenticator, parts.streams, parts.ops)
    api = Api(settings, *of_edge, gateway, parts.jobs.api(gateway), parts.metrics, openapi)
    app.on_shutdown.append(lambda _: api.aclose())
    chat = AiSdk(gateway.for_protocol(StreamProtocol.AI_SDK))
    ag_ui = AgUi(gateway.for_protocol(StreamProtocol.AG_UI), redis)
    a2a = A2A(gateway.for_protocol(StreamProtocol.A2A), redis, parts.history, version(), settings.public_url)
    parts.webhooks.forms = a2a.webhook_forms
    mcp = Mcp(gateway.for_protocol(StreamProtocol.MCP), redis, parts.history, version(), settings)
    forms: dict[str, Forms] = {
        EVENTS: EventForms(parts.history, settings.max_event_bytes),
        CHUNKS: ChunkForms(commands, parts.history),
    }
    ds = DurableStreams(gateway.for_protocol(StreamProtocol.DURABLE_STREAMS), forms)
    ds_chats = DurableChats(gateway.for_protocol(StreamProtocol.AI_SDK))
    responses = ResponsesApi(gateway.for_protocol(StreamProtocol.RESPONSES), redis)
    # An edge on loopback (`serve --dev`, `dev`, `demo`) is for development.
    static = StaticFiles(fresh=settings.host == LOOPBACK, sign_in=sign_in_of(settings))
    protocols = (chat, ag_ui, a2a, mcp, ds, ds_chats, responses)
    app.add_routes([*api.routes(), *(route for each in protocols for route in each.routes()), *static.routes()])
    return app, api.open_stream
