"""What is posted, and that nothing is connected to but what is allowed: against servers and a resolver of ours."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yarl
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

from broker.webhooks import sender as module
from broker.webhooks.lanes import PLACES
from broker.webhooks.sender import Sender
from emitter import tasks
from tests.edges import LONGEST_SECONDS, eventually, under_load
from tests.ports import reserved_ports
from tests.receivers import SECRET, receiver

BODY = b'{"type":"t","timestamp":"2026-01-01T00:00:00.000Z","data":{"text":"\\u00e9"}}'


class Names(AbstractResolver):
    """Answers a name with its addresses, another list at each time; the last stays."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        self.asked.append(host)
        answers = self._names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            {"hostname": host, "host": each, "port": port, "proto": 0, "flags": 0,
             "family": kind[ipaddress.ip_address(each).version]}
            for each in found
        ]  # fmt: skip

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[list[int]]:
    """The port, and then a 1 for each connection to it, whoever that is for."""
    seen: list[int] = []

    async def on_connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        writer.close()

    server = await asyncio.start_server(on_connect, host, port)
    seen.append(server.sockets[0].getsockname()[1])
    try:
        yield seen
    finally:
        server.close()


async def _unchecked(self: module.GuardedResolver, *given: Any, **named: Any) -> list[Any]:
    return await self._inner.resolve(*given, **named)


async def post(sender: Sender, url: str, **headers: str) -> module.Outcome:
    return await sender.post(url, "msg_1", BODY, headers)


async def test_a_message_is_signed() -> None:
    """The official package takes it; given headers come along, but for those of the protocol."""
    async with receiver() as here, Sender(SECRET, ["127.0.0.1"], "runcast/1") as sender:
        assert await post(sender, here.url, **{"X-A": "b", "webhook-id": "forged"}) == (True, False, False, 0.0, "")
        (got,) = here.got
        assert (got.id, got.raw, got.headers["x-a"], got.headers["user-agent"]) == ("msg_1", BODY, "b", "runcast/1")
        changed = {**got.headers, "webhook-id": "msg_2"}
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(got.raw, changed)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Lima"])
async def test_the_time_is_right_wherever_it_runs(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package takes the hours of a local time for those of UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        async with receiver() as here, Sender(SECRET, ["127.0.0.1"], "r") as sender:
            assert (await post(sender, here.url)).taken
            assert abs(int(here.got[0].headers["webhook-timestamp"]) - time.time()) < 5
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_names_that_are_answered_late_keep_no_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup goes on when its delivery has given up: all that two users have under way, twice, leaves room."""
    begun, answer = list[str](), threading.Event()

    def look_up(host: str, *_: Any, **__: Any) -> Any:
        if host == "slow.example":
            begun.append(host)
            answer.wait(120)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = module.SystemNames()
    try:
        for number in (1, 2):
            given_up = [asyncio.create_task(names.resolve("slow.example")) for _ in range(2 * PLACES["user"])]
            await eventually("they ask", lambda: len(begun) == number * len(given_up))  # noqa: B023 - awaited here
            await tasks.end(given_up)
        async with asyncio.timeout(LONGEST_SECONDS):
            assert [found["host"] for found in await names.resolve("quick.example")] == ["192.0.2.1"]
    finally:
        answer.set()
        await names.close()


async def test_two_secrets_sign_while_receivers_change() -> None:
    old = base64.b64encode(b"an older secret of the tests....").decode()
    async with receiver() as here, Sender(f"{SECRET} {old}", ["127.0.0.1"], "r") as sender:
        assert (await post(sender, here.url)).taken
        Webhook(old).verify(here.got[0].raw, here.got[0].headers)


@pytest.mark.parametrize(
    ("status", "headers", "wanted"),
    [
        (200, {}, (True, False, False, 0.0, "")),
        (302, {"Location": "http://127.0.0.1:1/"}, (False, False, False, 0.0, "status 302")),
        (410, {}, (False, True, False, 0.0, "status 410")),
        (429, {"Retry-After": "7"}, (False, False, False, 7.0, "status 429")),
        (503, {"Retry-After": "999999"}, (False, False, False, 3600.0, "status 503")),
        (503, {"Retry-After": "soon"}, (False, False, False, 0.0, "status 503")),
        (500, {"Retry-After": "7"}, (False, False, False, 0.0, "status 500")),
    ],
)
async def test_what_answers_mean(status: int, headers: dict[str, str], wanted: tuple[Any, ...]) -> None:
    async with receiver() as here, Sender(SECRET, ["127.0.0.1"], "r") as sender:
        here.answer = lambda _: web.Response(status=status, headers=headers)
        assert await post(sender, here.url) == wanted


async def test_a_long_answer_is_not_read() -> None:
    """An endless one neither: the connection is closed after a while of it."""
    ended = asyncio.Event()

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                await response.write(b"x" * 65536)
        ended.set()
        return response

    runner = web.ServerRunner(web.Server(flood))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        async with Sender(SECRET, ["127.0.0.1"], "r") as sender, asyncio.timeout(10):
            assert (await post(sender, f"http://127.0.0.1:{port}/")).taken
            await ended.wait()
    finally:
        await runner.cleanup()


async def test_an_answer_whose_body_never_comes() -> None:
    """Its status counts."""

    async def stall(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 10
        await response.prepare(request)
        await asyncio.sleep(30)
        return response

    runner = web.ServerRunner(web.Server(stall), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        async with Sender(SECRET, ["127.0.0.1"], "r") as sender, asyncio.timeout(10):
            assert (await post(sender, f"http://127.0.0.1:{port}/")).taken
    finally:
        await runner.cleanup()


async def test_nobody_there_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both count as away, in a word."""
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)
    async with receiver() as here, Sender(SECRET, ["127.0.0.1"], "r") as sender:
        here.delay = 5.0
        assert await post(sender, here.url) == (False, False, True, 0.0, "timeout")
        await here.stop()
        assert await post(sender, here.url) == (False, False, True, 0.0, "connect")


# --- guards ----------------------------------------------------------------------------------------------------------


async def test_a_name_with_a_private_address_is_not_connected_to() -> None:
    """Nor one with several addresses of which one is private."""
    for answers in ([["127.0.0.1"]], [["93.184.216.34", "127.0.0.1"]], [["::ffff:127.0.0.1"]], [["169.254.169.254"]]):
        async with Sender(SECRET, [], "r", resolver=Names(hooks_example=answers)) as sender:
            assert await post(sender, "https://hooks.example/") == (False, False, False, 0.0, "forbidden")


async def test_a_name_that_changes_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection asks for the name once, and goes to the address that was checked. Here 127.0.0.2 passes for one
    of the internet: it is connected to, and 127.0.0.1, which the name has the next time, never."""
    only = [ipaddress.ip_network("127.0.0.1/32")]
    monkeypatch.setattr("broker.base.targets._FORBIDDEN", only)
    with reserved_ports(1) as (port,):
        async with listening("127.0.0.2", port) as allowed, listening("127.0.0.1", port) as private:
            for seen in (allowed, private):
                seen.pop()
            monkeypatch.setattr("broker.base.targets.PORTS", frozenset({port}))
            names = Names(hooks_example=[["127.0.0.2"], ["127.0.0.1"]])
            async with Sender(SECRET, [], "r", resolver=names) as sender:
                first, second = [await post(sender, f"https://hooks.example:{port}/") for _ in range(2)]
            assert (first.is_away, second.error) == (True, "forbidden")
            assert (names.asked, allowed, private) == (["hooks.example"] * 2, [1], [])


async def test_names_that_are_slow_keep_only_their_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user names hosts whose name servers do not answer: the loop's threads, by which edges find Redis, are free."""
    ask, answered = socket.getaddrinfo, threading.Event()

    def slow(host: Any, *given: Any, **named: Any) -> Any:
        if str(host).endswith(".example"):
            answered.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return ask(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    loop = asyncio.get_running_loop()
    async with Sender(SECRET, [], "r") as sender:
        posts = [asyncio.create_task(post(sender, f"https://h{number}.example/")) for number in range(40)]
        await asyncio.sleep(0.2)
        try:
            async with asyncio.timeout(min(8, under_load(3))):
                assert await loop.getaddrinfo("127.0.0.1", 80)
        finally:
            answered.set()
        assert {(await each).error for each in posts} == {"dns"}


async def test_the_address_of_the_socket_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the check of the name was passed: the resolver answers twice for one connection, or the check were
    wrong."""
    monkeypatch.setattr(module.GuardedResolver, "resolve", _unchecked)
    async with listening() as seen:
        port = seen.pop()
        monkeypatch.setattr("broker.base.targets.PORTS", frozenset({port}))
        async with Sender(SECRET, [], "r", resolver=Names(hooks_example=[["127.0.0.1"]])) as sender:
            assert (await post(sender, f"https://hooks.example:{port}/")).error == "forbidden"
        assert seen == []


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would choose the address."""
    async with listening() as seen, receiver() as here:
        proxy = f"http://127.0.0.1:{seen.pop()}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        async with Sender(SECRET, ["127.0.0.1"], "r") as sender:
            assert (await post(sender, here.url)).taken
        assert seen == []


async def test_a_url_that_is_read_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client would take for another host than the check does goes nowhere."""
    other = yarl.URL("https://other.example/")
    monkeypatch.setattr(module, "URL", lambda url, encoded: other)
    names = Names(other_example=[["127.0.0.1"]])
    async with Sender(SECRET, [], "r", resolver=names) as sender:
        assert (await post(sender, "https://hooks.example/")).error == "forbidden"
    assert names.asked == []


# --- TLS -------------------------------------------------------------------------------------------------------------


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    """As RFC 5280, section 4.2.1.3 asks for it, which Python checks from 3.13 on."""
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    unset = dict.fromkeys((*others, "decipher_only", "crl_sign"), False)
    return x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, **unset)


def _signed(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate of a test CA for this name: the CA's file, and a server's context."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, issuer: str, key: Any, signer: Any, extension: Any) -> x509.Certificate:
        common = x509.NameAttribute(NameOID.COMMON_NAME, name)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([common]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(_usage(is_authority=key is signer), critical=True)
            .sign(signer, hashes.SHA256())
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("ca", "ca", ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    own = certificate(host, "ca", key, ca_key, x509.SubjectAlternativeName([x509.DNSName(host)]))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(own.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


@pytest.mark.parametrize(("host", "error"), [("hooks.example", ""), ("other.example", "tls")])
async def test_certificates_are_checked_by_the_name(
    host: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the URL is asked for (SNI), compared, and is the request's `Host`, though an address that was looked
    up is connected to."""
    authority, context = _signed(tmp_path, host)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with receiver(context) as here:
        names = Names(hooks_example=[["127.0.0.1"]])
        async with Sender(SECRET, [f"hooks.example:{here.port}"], "r", resolver=names) as sender:
            outcome = await post(sender, f"https://hooks.example:{here.port}/x")
        assert (outcome.error, asked) == (error, ["hooks.example"])
        if not error:
            assert here.got[0].headers["host"] == f"hooks.example:{here.port}"


async def test_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    _, context = _signed(tmp_path, "hooks.example")
    async with receiver(context) as here:
        names = Names(hooks_example=[["127.0.0.1"]])
        async with Sender(SECRET, ["hooks.example"], "r", resolver=names) as sender:
            assert (await post(sender, f"https://hooks.example:{here.port}/x")).error == "tls"
        assert here.got == []
