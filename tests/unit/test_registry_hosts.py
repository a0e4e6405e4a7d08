"""Through which proxy a host is asked."""

import pytest
from yarl import URL

from fargate_agent.egress.proxies import is_without_proxy
from fargate_agent.image.reference import DOCKER_HUB, DOCKER_HUB_API
from fargate_agent.image.registry.hosts import Hosts, OwnSettings

ALL = "http://all.test:3128"
OWN = "http://own.test:3128"


@pytest.mark.parametrize(
    ("url", "pattern", "matches"),
    [
        ("https://registry.test/v2/", "registry.test", True),
        ("https://a.registry.test/v2/", "registry.test", True),
        ("https://notregistry.test/v2/", "registry.test", False),
        ("https://REGISTRY.test/v2/", "Registry.Test", True),
        ("https://a.registry.test/v2/", ".registry.test", True),
        ("https://registry.test/v2/", ".registry.test", False),
        ("https://a.registry.test/v2/", "*.registry.test", True),
        ("https://registry.test:5000/v2/", "registry.test:5000", True),
        ("https://registry.test/v2/", "registry.test:5000", False),
        ("https://registry.test/v2/", "registry.test:443", True),
        ("https://10.1.2.3:5000/v2/", "10.0.0.0/8", True),
        ("https://11.1.2.3:5000/v2/", "10.0.0.0/8", False),
        ("https://registry.test/v2/", "10.0.0.0/8", False),
        ("https://10.1.2.3/v2/", "10.1.2.3", True),
        ("https://[fd00::1]:5000/v2/", "fd00::/8", True),
        ("https://[fd00::1]:5000/v2/", "fd00::1", True),
        ("https://anything.test/v2/", "*", True),
    ],
)
def test_hosts_without_a_proxy(url: str, pattern: str, matches: bool) -> None:
    assert is_without_proxy(URL(url), (pattern,)) is matches


@pytest.mark.parametrize(
    ("registry", "url", "expected"),
    [
        pytest.param("a.test", "https://a.test/v2/", ALL, id="that of all"),
        pytest.param("own.test", "https://own.test/v2/", OWN, id="its own"),
        pytest.param("own.test", "https://blobs.test/x", OWN, id="that of who refers to it"),
        pytest.param("own.test", "https://near.test/x", None, id="listed, so not that"),
        pytest.param("near.test", "https://near.test/v2/", None, id="listed"),
        pytest.param("none.test", "https://none.test/v2/", None, id="none of its own"),
        pytest.param("none.test", "https://blobs.test/x", None, id="nor for what it refers to"),
        pytest.param("none.test", "https://own.test/x", OWN, id="but that has its own"),
        pytest.param("docker.io", f"https://{DOCKER_HUB_API}/v2/", OWN, id="Docker Hub"),
        pytest.param("docker.io", f"https://auth.{DOCKER_HUB}/token", OWN, id="and its tokens"),
    ],
)
def test_proxy_of_a_host(registry: str, url: str, expected: str | None) -> None:
    hosts = Hosts(
        proxy=ALL,
        no_proxy=("near.test",),
        own={
            "own.test": OwnSettings(proxy=OWN),
            "none.test": OwnSettings(proxy=""),
            "docker.io": OwnSettings(proxy=OWN),
        },
    )

    found = hosts.for_registry(registry).find_proxy(URL(url))

    assert (found and str(found.url)) == expected


def test_password_of_a_proxy_is_in_no_text() -> None:
    hosts = Hosts(proxy="http://ann:geheim@all.test:3128").for_registry("a.test")

    proxy = hosts.find_proxy(URL("https://a.test/v2/"))

    assert proxy is not None
    assert proxy.headers == {"Proxy-Authorization": "Basic YW5uOmdlaGVpbQ=="}
    assert "geheim" not in f"{hosts!r} {proxy!r} {proxy.name}"
