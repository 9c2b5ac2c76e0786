"""What people write by hand: every viewer reads its stream by XREAD, and writes what it gets.

handmade.py REDIS_URL PORT
"""

from __future__ import annotations

import resource
import sys

from aiohttp import web
from redis.asyncio import Redis

REDIS = web.AppKey("redis", Redis)


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    key, last = request.match_info["name"], request.headers.get("Last-Event-ID", "0")
    while True:
        for _, entries in await request.app[REDIS].xread({key: last}, count=100, block=15_000) or ():
            for id_, fields in entries:
                last = id_.decode()
                await response.write(b"id: %b\ndata: %b\n\n" % (id_, fields[b"d"]))


def main(redis_url: str, port: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    app = web.Application()
    app[REDIS] = Redis.from_url(redis_url, socket_timeout=None, max_connections=20_000)
    app.router.add_get("/{name}", stream)
    web.run_app(app, host="127.0.0.1", port=port, backlog=4096, access_log=None, handler_cancellation=True, print=None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
