"""Clients that ask for gzip, by themselves or when told to, show each event as it comes, and take the end as one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from tests.edges import Author, EdgeProcess, edge, under_load

AIOHTTP = """
import asyncio, os, aiohttp
async def main():
    headers = {"Authorization": os.environ["AUTH"], "Accept-Encoding": "gzip"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(os.environ["URL"]) as response:
        async for line in response.content:
            print(line.decode(), end="", flush=True)
asyncio.run(main())
"""
HTTPX = """
import os, httpx
with httpx.stream("GET", os.environ["URL"], headers={"Authorization": os.environ["AUTH"]}, timeout=20) as response:
    for line in response.iter_lines():
        print(line, flush=True)
"""
REQUESTS = """
import os, requests
response = requests.get(os.environ["URL"], headers={"Authorization": os.environ["AUTH"]}, stream=True, timeout=20)
for piece in response.iter_content(chunk_size=None):
    print(piece.decode(), end="", flush=True)
"""
NODE = """
const response = await fetch(process.env.URL, { headers: { Authorization: process.env.AUTH } });
for await (const text of response.body.pipeThrough(new TextDecoderStream())) process.stdout.write(text);
"""
GO = """
package main

import ("bufio"; "fmt"; "net/http"; "os")

func main() {
    request, _ := http.NewRequest("GET", os.Getenv("URL"), nil)
    request.Header.Set("Authorization", os.Getenv("AUTH"))
    response, err := http.DefaultClient.Do(request)
    if err != nil { panic(err) }
    lines := bufio.NewScanner(response.Body)
    for lines.Scan() { fmt.Println(lines.Text()) }
    if err := lines.Err(); err != nil { panic(err) }
}
"""
COMMANDS = {
    "aiohttp": [sys.executable, "-c", AIOHTTP],
    "httpx": [sys.executable, "-c", HTTPX],
    "requests": [sys.executable, "-c", REQUESTS],
    "curl": ["sh", "-c", 'exec curl --silent --no-buffer --fail --compressed --header "Authorization: $AUTH" "$URL"'],
    "node": ["node", "--input-type=module", "--eval", NODE],
    "go": ["./main"],
}
HERE = [name for name in COMMANDS if name in ("aiohttp", "httpx", "requests") or shutil.which(name)]


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[EmbeddedRedis, EdgeProcess]]:
    with EmbeddedRedis() as redis, edge(redis.url, heartbeat_seconds=0.5) as started:
        yield redis, started


@pytest.fixture
async def stand_redis(stand: tuple[EmbeddedRedis, EdgeProcess]) -> AsyncIterator[Redis]:
    client = connect(stand[0].url)
    yield client
    await client.aclose()


def built(name: str, folder: Path) -> None:
    if name == "go":
        (folder / "main.go").write_text(GO)
        environ = os.environ | {"GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        subprocess.run(["go", "build", "-o", "main", "main.go"], cwd=folder, env=environ, check=True, timeout=100)


@contextlib.asynccontextmanager
async def started(name: str, folder: Path, edge_: EdgeProcess, author: Author) -> AsyncIterator[Process]:
    environ = os.environ | {"URL": f"http://127.0.0.1:{edge_.port}{author.path}", "AUTH": f"Bearer {author.token}"}
    client = await asyncio.create_subprocess_exec(*COMMANDS[name], stdout=PIPE, cwd=folder, env=environ)
    try:
        yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()
        await client.wait()


async def read_until(client: Process, begin: str) -> str:
    """The next line that begins so."""
    assert client.stdout is not None
    async with asyncio.timeout(under_load(15)):
        while line := (await client.stdout.readline()).decode():
            if line.startswith(begin):
                return line.strip()
    raise AssertionError(f"it ended before {begin}")


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", HERE)
async def test_each_event_is_shown_before_the_next_is_sent(
    stand: tuple[EmbeddedRedis, EdgeProcess], stand_redis: Redis, name: str, tmp_path: Path
) -> None:
    """Two of the same, of which one joins in the middle, so that one is in step and the other not yet."""
    edge_, author = stand[1], Author(stand_redis, f"user-of-{name}")
    built(name, tmp_path)
    await author.begin()
    before = edge_.metric("runcast_event_bytes_saved_total")
    async with started(name, tmp_path, edge_, author) as client:
        await read_until(client, "event: stream:live")
        for number in range(25):
            last = await author.say(size=20_000 if number == 12 else number)
            assert await read_until(client, "id: ") == f"id: {last}"
            if number == 15:  # heartbeats
                await asyncio.sleep(1.2)
        async with started(name, tmp_path, edge_, author) as other:
            await read_until(other, "event: stream:live")
            for _ in range(5):
                last = await author.say()
                assert await read_until(client, "id: ") == f"id: {last}"
                assert await read_until(other, "id: ") == f"id: {last}"
            await author.end()
            for each in (client, other):
                await read_until(each, 'data: {"reason":"finished"')
                assert await asyncio.wait_for(each.wait(), under_load(10)) == 0
    assert edge_.metric("runcast_event_bytes_saved_total") > before, "it was in gzip"
