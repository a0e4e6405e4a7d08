"""HTTP proxies: how one is asked, and which hosts are asked without.

Source: RFC 9110, 9.3.6 and 11.7; for the list of hosts Go, golang.org/x/net/http/httpproxy.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from yarl import URL

from fargate_agent.egress.urls import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One HTTP proxy."""

    url: URL
    """Without user and password."""
    full_url: URL = field(repr=False)
    """With them."""
    authorization: str = field(default="", repr=False)
    """The header `Proxy-Authorization`; empty: none."""
    setting: str
    """The agent's setting that names it."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"the proxy {shown(self.url)} of the agent's setting {self.setting}"

    @property
    def headers(self) -> dict[str, str]:
        """What the proxy is shown, and nobody else."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def parse_proxy(text: str, setting: str) -> Proxy | None:
    """Return the proxy of a setting; None if the text is empty."""
    if not text:
        return None
    url = URL(text)
    authorization = ""
    if url.user is not None:
        pair = f"{url.user}:{url.password or ''}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    bare = URL.build(scheme=url.scheme, host=url.host or "", port=url.port)
    return Proxy(url=bare, full_url=url, authorization=authorization, setting=setting)


def is_without_proxy(url: URL, patterns: Sequence[str]) -> bool:
    """Whether a host is on the list of those that are asked without a proxy."""
    return any(_matches(url, pattern.lower()) for pattern in patterns)


def _matches(url: URL, pattern: str) -> bool:
    host = (url.host or "").lower().rstrip(".")
    if pattern == "*":
        return True
    if "/" in pattern:
        return _is_in_range(host, pattern)
    if pattern.count(":") == 1:
        pattern, _, port = pattern.partition(":")
        if port != str(url.port):
            return False
    suffix = pattern.removeprefix("*").strip("[]")
    return host == suffix or host.endswith(suffix if suffix.startswith(".") else f".{suffix}")


def _is_in_range(host: str, pattern: str) -> bool:
    try:
        return ip_address(host) in ip_network(pattern, strict=False)
    except ValueError:
        return False
