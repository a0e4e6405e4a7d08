"""How each host is spoken to: with or without TLS, whose certificates count, through which proxy.

A registry's certificates and its proxy also count for the hosts that it refers to.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from yarl import URL

from fargate_agent.egress.authorities import AuthoritiesError, read_authorities
from fargate_agent.egress.proxies import Proxy, is_without_proxy, parse_proxy
from fargate_agent.egress.transport import RefusedError
from fargate_agent.egress.urls import host_of
from fargate_agent.image.reference import DOCKER_HUB

_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSettings:
    """What one registry has for itself."""

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    """A URL; empty: none; None: that of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The settings about hosts, as one pull sees them."""

    insecure: frozenset[str] = frozenset()
    """Hosts that are spoken to without TLS, in small letters and without `:80`."""
    own: Mapping[str, OwnSettings] = field(default_factory=dict)
    """By registry, as `name_of` returns it."""
    proxy: str = field(default="", repr=False)
    """Of all registries; empty: none."""
    no_proxy: tuple[str, ...] = ()
    registry: str = ""
    """Whose image is pulled."""
    _trusted: dict[str, ssl.SSLContext] = field(default_factory=dict)
    """What was read of `ca_file`, by registry."""

    def for_registry(self, registry: str) -> "Hosts":
        """Return these for a pull from one registry, named as in an image."""
        return replace(self, registry=name_of(registry), _trusted={})

    def base(self, host: str) -> URL:
        """Return the URL below which a registry answers."""
        scheme = "http" if host.removesuffix(":80").lower() in self.insecure else "https"
        return URL(f"{scheme}://{host}/v2/")

    async def find_trusted(self, url: URL) -> ssl.SSLContext | None:
        """Return who may vouch for a host; None: whom this machine trusts.

        Raises:
            RefusedError: the file of its setting can't be used.
        """
        registry = self._find_authority(url)
        if registry is None:
            return None
        if registry not in self._trusted:
            file = self.own[registry].ca_file
            if file is None:
                return None
            try:
                self._trusted[registry] = await asyncio.to_thread(read_authorities, file)
            except AuthoritiesError as error:
                raise RefusedError(
                    f"the agent's setting {setting(registry, 'ca_file')}: {error}"
                ) from error
        return self._trusted[registry]

    def find_proxy(self, url: URL) -> Proxy | None:
        """Return through which proxy a host is asked; None: through none.

        `no_proxy` doesn't count for a registry that has a proxy of its own.
        """
        host = name_of(host_of(url))
        for registry in (host, self.registry):
            own = self.own.get(registry)
            if own is not None and own.proxy is not None:
                if registry != host and is_without_proxy(url, self.no_proxy):
                    return None
                return parse_proxy(own.proxy, setting(registry, "proxy"))
        if is_without_proxy(url, self.no_proxy):
            return None
        return parse_proxy(self.proxy, "registry_proxy")

    def advise_on_trust(self, url: URL) -> str:
        """Return what the operator can do about a certificate that isn't trusted."""
        registry = self._find_authority(url)
        if registry is not None:
            return (
                f"the certificates of the agent's setting {setting(registry, 'ca_file')} are not "
                "those of its authority"
            )
        return (
            "if the authority is your own, name a file with its certificate in the agent's setting"
            f" {setting(self.registry or host_of(url), 'ca_file')}"
        )

    def _find_authority(self, url: URL) -> str | None:
        """Return the registry whose `ca_file` counts for a host."""
        for registry in (name_of(host_of(url)), self.registry):
            own = self.own.get(registry)
            if own is not None and own.ca_file is not None:
                return registry
        return None


def name_of(host: str) -> str:
    """Return a registry as the settings name it, whichever way it was written."""
    name = host.lower().removesuffix(":443")
    return DOCKER_HUB if name in _HUB_NAMES else name


def setting(registry: str, key: str) -> str:
    """Return the full name of a registry's setting."""
    return f'registries."{registry}".{key}'
