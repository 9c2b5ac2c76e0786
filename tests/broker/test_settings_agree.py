"""Every setting is judged alike by all who read it: the edge, `runcast settings`, the worker command and emitters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from broker.base.settings import Settings, load_settings
from broker.cli.main import main as runcast
from emitter.__main__ import FLAGS, read_settings
from emitter.__main__ import main as worker
from emitter.errors import InvalidSetting
from emitter.settings import SharedSettings, settings_of
from emitter.store.append import limits_from, limits_of

SETTINGS = settings_of(Settings)
SHARED = settings_of(SharedSettings)
WHOLE, LISTS = ("many", "1.5", "1e3", "+1", "007", "\u0661", "nan"), (["a", "a, b"], ["a,,b", ","])
TEXTS: Mapping[str, tuple[list[str], list[str]]] = {
    "redis_url": (
        ["redis://h:1/2", "rediss+sentinel://a:1,b:2/main", "redis+cluster://h:1", "unix:///redis.sock"],
        ["http://h", "h:6379", "redis://h:port", "redis://h?decode_responses=true", "redis+sentinel://h/main"],
    ),
    "redis_prefix": (["a", "A" * 32], ["a" * 33, "a b", "a:b"]),
    "jwt_secret": (["x" * 32], ["x" * 31]),
    "jwks_url": (["https://a.example/jwks"], ["file:///etc/passwd"]),
    "public_url": (["https://a.example"], ["a.example", "https://a.example/?a=b"]),
    "oidc_issuer": (["https://id.example/realms/a", "https://id.example/"], ["id.example", "https://a b"]),
    "oidc_origins": (["https://token.example,http://b:1"], ["*", "https://a.example/token", "https://a.example,,"]),
    "cors_origins": (["https://a.example,http://b:1"], ["*", "https://a.example/path", "https://a.example,,"]),
    "default_scopes": (["executions:read,admin"], ["everything"]),
    "compress_streams": (["auto", "off", "OFF"], ["on", "gzip"]),
    "log_level": (["debug", "error", "INFO"], ["loud", "info,debug"]),
    "worker_admin_port": (["0", "65535"], ["-1", "65536", *WHOLE]),
    "jwt_scope_claim": LISTS,
    "redact_keys": LISTS,
    "hooks": LISTS,
    "webhook_url": (["https://a.example/hook", "http://localhost:1"], ["a.example", "ftp://a.example", "https://a b"]),
    "webhook_secret": (
        ["whsec_" + "A" * 32, "A" * 84, "whsec_" + "A" * 32 + " " + "B" * 40],
        ["A" * 28, "A" * 100, "whsec_not/base_64!" + "A" * 32, " ".join(["A" * 32] * 3)],
    ),
    "webhook_allow_hosts": (
        ["a.example", "10.0.0.1:80,[::1]:80"],
        ["https://a", "a b", "*", "a,,b"],
    ),
} | dict.fromkeys(
    (
        "host",
        "admin_host",
        "jwt_public_key",
        "jwt_issuer",
        "jwt_audience",
        "jwt_org_claim",
        "oidc_client_id",
        "oidc_scope",
        "oidc_audience",
    ),
    (["any"], []),
)
"""Of settings that are no numbers: what is allowed, and what is not."""


def numbers(name: str) -> tuple[list[str], list[str]]:
    """The lowest and the highest; below, above, and garbage."""
    setting = SETTINGS[name]
    low, high = setting.about.ge, setting.about.le
    assert low is not None, f"{name}: say its limits, or give it texts here"
    good, bad = [f"{low}"], ["many", "1,5", "null", "inf"]
    if setting.type is int:
        bad += WHOLE
        bad.append(str(low - 1))
    else:
        good.append(f"{low + 0.5}")
        bad += ["nan", str(low - 0.001)]
    if high is not None:
        good.append(str(high))
        bad.append(str(high + 1))
    return good, bad


def cases(name: str) -> Iterator[tuple[str, bool]]:
    """Texts, and whether the setting may be that."""
    good, bad = TEXTS.get(name) or numbers(name)
    for text in good:
        yield text, True
    for text in bad:
        yield text, False


OF_EMITTERS = {
    name for name in SHARED if name.startswith(("log_max", "log_ttl", "log_fin", "feed", "max", "unheld", "budget"))
}
OF_EMITTERS |= {"redact_keys", "webhook_url"}


def is_refused(status: int, said: str, name: str, told_by: str = "") -> bool:
    """Whether a command said in one line that this setting is not allowed."""
    is_named = f"{told_by or SETTINGS[name].variable}: " in said and " is not allowed; allowed: " in said
    assert not is_named or (status, said.count("\n")) == (2, 1)
    return is_named


@pytest.mark.parametrize("name", SETTINGS)
def test_all_judge_alike(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The lowest, the highest, what is below, above, or no value at all: what one takes, every other takes."""
    variable = SETTINGS[name].variable
    for text, is_good in cases(name):
        verdicts = {}
        monkeypatch.setenv(variable, text)
        for command in ("settings", "serve"):  # which ends without a Redis, or without a key
            status = runcast([command])
            verdicts[command] = not is_refused(status, capsys.readouterr().err, name)
        monkeypatch.delenv(variable)
        if name in SHARED:
            status = worker(["no_such_module:agents"], {variable: text})
            verdicts["worker"] = not is_refused(status, said := capsys.readouterr().err, name)
            assert verdicts["worker"] == ("cannot import 'no_such_module'" in said)
        if name in FLAGS:
            status = worker(["no_such_module:agents", f"{FLAGS[name]}={text}"], {})
            verdicts["flag"] = not is_refused(status, capsys.readouterr().err, name, FLAGS[name])
        assert verdicts == dict.fromkeys(verdicts, is_good), text
        assert_same_value_or_words(name, {variable: text}, is_good)


def assert_same_value_or_words(name: str, environ: Mapping[str, str], is_good: bool) -> None:
    if not is_good:
        with pytest.raises(InvalidSetting) as caught:
            load_settings(environ)
        assert caught.value.allowed.startswith(SETTINGS[name].allowed)
    elif name in SHARED:
        assert getattr(load_settings(environ), name) == getattr(read_settings({}, environ), name)


@pytest.mark.parametrize(
    ("variable", "text", "is_good"),
    [("RUNCAST_WORKER_CONCURRENCY", "5000", False), ("RUNCAST_LEASE_SECONDS", "7200", True)],
)
def test_what_was_judged_differently(variable: str, text: str, is_good: bool) -> None:
    """Neither stops a worker after an edge took it, nor the other way round."""
    environ = {variable: text}
    for judge in (load_settings, lambda given: read_settings({}, given)):
        if is_good:
            judge(environ)
        else:
            with pytest.raises(InvalidSetting):
                judge(environ)


@pytest.mark.parametrize("name", SETTINGS)
def test_emitters_judge_what_they_read(name: str) -> None:
    """Limits and names to redact as an edge does; other variables do not stop an agent's process."""
    for text, is_good in cases(name):
        environ = {SETTINGS[name].variable: text}
        if not is_good and name in OF_EMITTERS:
            with pytest.raises(InvalidSetting):
                limits_from(environ)
            continue
        settings = load_settings(environ) if is_good else Settings()
        assert limits_from(environ) == (limits_of(settings), settings.redact_keys)


def test_a_flag_wins_and_saves_a_bad_variable() -> None:
    """Only what counts is judged; a flag that is empty is none."""
    environ = {"RUNCAST_WORKER_CONCURRENCY": "many", "RUNCAST_GRACE_SECONDS": "7"}
    given = read_settings({"worker_concurrency": "5", "grace_seconds": ""}, environ)
    assert (given.worker_concurrency, given.grace_seconds) == (5, 30)


def test_a_service_of_kubernetes_is_no_port_of_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """As for edges: the address of a Service called `runcast-worker-admin` stops nothing."""
    environ = {"RUNCAST_WORKER_ADMIN_PORT": "tcp://10.0.0.1:80"}
    assert load_settings(environ).worker_admin_port is None
    assert worker(["no_such_module:agents"], environ) == 2
    assert "no_such_module" in capsys.readouterr().err
