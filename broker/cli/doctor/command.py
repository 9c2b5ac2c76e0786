"""`runcast doctor`: what is wrong with a Redis, with the edges over it, and with the way to them."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from broker.auth.tokens import DEFAULT_SCOPES
from broker.base.settings import Settings, load_settings, with_redis
from broker.cli.doctor.findings import as_text, is_well
from broker.cli.doctor.network_path import Caller, caller_of, look_at_way
from broker.cli.doctor.redis import USER, list_live, look_at_redis
from broker.edge.signing import minted


def look(arguments: argparse.Namespace) -> int:
    settings = load_settings(os.environ)
    caller = _caller(arguments.token, settings) if arguments.url else None
    if caller is None:
        with_redis(settings)
    return asyncio.run(_look(settings.redis_url, arguments.url, caller, arguments.idle))


def _caller(token: str | None, settings: Settings) -> Caller:
    if token:
        return caller_of(token, settings.jwt_org_claim)
    if not settings.jwt_secret:
        raise ValueError("a token is needed for streams: --token, RUNCAST_TOKEN, or RUNCAST_JWT_SECRET to mint one")
    return caller_of(minted(settings, USER, scopes=DEFAULT_SCOPES, ttl=600), settings.jwt_org_claim)


async def _look(redis_url: str, url: str | None, caller: Caller | None, idle_seconds: float) -> int:
    found = []
    if redis_url:
        found += [*await look_at_redis(redis_url), *await list_live(redis_url)]
        print(as_text(found), flush=True)
    if url and caller is not None:
        print(f"looking at {url}, which takes about {idle_seconds + 10:.0f} s ...", file=sys.stderr)
        print(as_text(seen := await look_at_way(url, caller, redis_url, idle_seconds)))
        found += seen
    return 0 if is_well(found) else 1
