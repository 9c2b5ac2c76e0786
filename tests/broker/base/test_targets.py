"""Where webhooks may go, and what may sign them."""

from __future__ import annotations

import base64

import pytest

from broker.base.targets import ForbiddenTarget, Target, check_address, check_secrets, target_of
from emitter.errors import InvalidEvent


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://a.example/hook?x=1", "a.example", 443),
        ("https://A.Example:8443", "a.example", 8443),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443),
    ],
)
def test_hosts_of_the_internet_are_allowed(url: str, host: str, port: int) -> None:
    assert target_of(url, ()) == Target(host, port, is_named=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",  # no TLS
        "ftp://a.example/",
        "https://",
        "https://a.example:22/",
        "https://a.example:70000/",
        "https://user:password@a.example/",
        "https://a.example\\@10.0.0.1/",
        "https://a.example/ b",
        "https://a.example/\u00e9",
        "https://localhost/",
        "https://redis/",  # a name of this network
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://a..example/",
        "https://" + "a" * 2050,
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """With a sentence that has no more of the URL than its host."""
    with pytest.raises(ForbiddenTarget) as refused:
        target_of(url, ())
    assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
        *("192.168.1.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "::", "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a00:1"),
        *("64:ff9b:1::1", "2002:a00:1::", "2001:0:4136:e378::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254"),
        *("fec0::1", "ff02::1", "2001:db8::1", "::ffff:0:10.0.0.1", "nonsense"),
    ],
)
def test_addresses_with_a_purpose_are_refused(address: str) -> None:
    """Private, loopback, link-local, metadata, carrier's, multicast, and IPv4 in the clothes of IPv6."""
    with pytest.raises(ForbiddenTarget):
        check_address(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_other_addresses_are_allowed(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://hooks:8080/", ["hooks"]),
        ("http://hooks:8080/", ["HOOKS:8080"]),
        ("http://127.0.0.1:99/", ["127.0.0.1"]),
        ("http://[::1]:99/", ["[::1]:99"]),
        ("https://[::1]/", ["[::1]"]),
    ],
)
def test_hosts_that_are_named(url: str, named: list[str]) -> None:
    """Whatever they are; without a port for every port."""
    assert target_of(url, named).is_named


@pytest.mark.parametrize(("url", "named"), [("http://hooks:8081/", "hooks:8080"), ("https://10.0.0.1/", "10.0.0.2")])
def test_others_are_not(url: str, named: str) -> None:
    with pytest.raises(ForbiddenTarget):
        target_of(url, [named])


def test_secrets() -> None:
    """One, or two while receivers change; whole base 64 of 24 to 64 bytes."""
    good = base64.b64encode(b"x" * 24).decode()
    for text in (good, "whsec_" + good, f"{good} whsec_{good}", base64.b64encode(b"x" * 64).decode().rstrip("=")):
        check_secrets(text)
    for text in ("", good[:-4], good[:-1] + "!", f"{good} {good} {good}", base64.b64encode(b"x" * 65).decode()):
        with pytest.raises(InvalidEvent):
            check_secrets(text)
