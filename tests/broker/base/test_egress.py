"""Through which proxy requests leave, by the environment."""

from __future__ import annotations

import pytest

from broker.base.egress import proxy_of

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://id.example/keys", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://id.example/keys", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://id.example/keys", None),
        ({"http_proxy": "proxy:3128"}, "http://id.example/keys", "http://proxy:3128"),
        ({"https_proxy": "socks5://proxy:1080"}, "https://id.example/keys", None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": ".example"}, "https://id.example/keys", None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "id.example:8443"}, "https://id.example:8443/keys", None),
        ({"HTTP_PROXY": "http://proxy"}, "http://127.0.0.1:8080/api", None),
        ({"HTTP_PROXY": "http://proxy"}, "http://localhost:8080/api", None),
        ({"HTTP_PROXY": "http://proxy"}, "http://[::1]:8080/api", None),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, proxy: str | None
) -> None:
    """By scheme; not for what `NO_PROXY` lists, not for this machine, and only one that speaks HTTP."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy
