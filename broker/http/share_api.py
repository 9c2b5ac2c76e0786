"""Share links over HTTP: make one, list them, revoke one."""

from __future__ import annotations

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.auth.shares import Share, Shares
from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.executions.publish import exists
from broker.executions.share_types import ShareInfo, ShareList, ShareRequest, ShareResponse
from broker.http.addresses import origin_of
from broker.http.gateway import READS, Gateway
from broker.http.json import json_response
from broker.http.paths import execution_of
from emitter.errors import UnknownExecution

DEFAULT_SECONDS = 86_400


class ShareApi:
    """The handlers."""

    def __init__(self, gateway: Gateway, redis: Redis, shares: Shares, settings: Settings) -> None:
        self._gateway = gateway
        self._redis = redis
        self._shares = shares
        self._settings = settings

    def routes(self, base: str) -> list[web.RouteDef]:
        path = base + "/{id}/shares"
        return [
            web.get(path, self.list),
            web.post(path, self.create),
            web.delete(path + "/{share}", self.revoke),
        ]

    async def create(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write", rate=READS)
        execution_id, body = execution_of(request), await self._gateway.read_json(request, ShareRequest)
        base = self._settings.public_url or origin_of(request)  # which refuses an invalid host before a link is made
        most = self._settings.share_max_seconds
        if not most:
            raise Problem(403, "forbidden", "share links are switched off here (RUNCAST_SHARE_MAX_SECONDS)")
        seconds = body.expires_in_seconds or min(DEFAULT_SECONDS, most)
        if seconds > most:
            raise Problem(422, "invalid", f"a share link lives {most} s at most", path="$.expiresInSeconds", limit=most)
        await self._gateway.count_share(identity)
        token, share = await self._shares.mint(identity, execution_id, seconds)
        self._gateway.audit(request, identity, "share_created", execution=execution_id, share=share.id, seconds=seconds)
        url = f"{base.rstrip('/')}/#/shared/{execution_id}/{token}"
        answer = ShareResponse(**msgspec.structs.asdict(_info(share)), token=token, url=url)
        return json_response(answer, status=201)

    async def list(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        execution_id = execution_of(request)
        if not await exists(self._redis, identity.owner, execution_id):
            raise UnknownExecution(execution_id)
        shares = await self._shares.of(identity.owner, execution_id)
        return json_response(ShareList(shares=[_info(share) for share in shares]))

    async def revoke(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write", rate=READS)
        execution_id = execution_of(request)
        share = await self._shares.revoke(identity.owner, execution_id, request.match_info["share"])
        self._gateway.audit(request, identity, "share_revoked", execution=execution_id, share=share.id)
        return web.Response(status=204, headers={"Cache-Control": "no-store"})


def _info(share: Share) -> ShareInfo:
    created, expires = int(share.created_at * 1000), int(share.expires_at * 1000)
    return ShareInfo(share_id=share.id, created_at=created, expires_at=expires, by=share.by)
