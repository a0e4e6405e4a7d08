"""URLs as servers send them: kept byte for byte, resolved against a base, shown without secrets."""

import re
from typing import Final
from urllib.parse import quote, urljoin

from aiohttp.typedefs import StrOrURL
from yarl import URL

Origin = tuple[str, str, int]
"""Scheme, host and port: who is asked. Source: RFC 6454."""

_URL_CHARACTERS: Final = "!#$%&'()*+,-./:;=?@[]_~"
"""Besides letters and digits; `%` too, since what is encoded stays so. Source: RFC 3986, 2."""

_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_USER: Final = re.compile(r"//[^/]*@")
_HAS_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def parse_url(text: str) -> URL:
    """Return an absolute URL as it is: what a server signed or encoded stays as it was sent.

    Characters that no URL may have, a space for instance, are percent-encoded.

    Raises:
        ValueError: it is no absolute URL of HTTP.
    """
    encoded = quote(text.strip().encode("utf-8", "surrogateescape"), safe=_URL_CHARACTERS)
    url = URL(encoded.partition("#")[0], encoded=True)
    if url.scheme not in {"http", "https"} or not _HOST.fullmatch(url.host or ""):
        raise ValueError("not an absolute http or https URL")
    return url


def resolve_url(base: URL, text: str) -> URL:
    """Return the URL that a `Location` means in an answer of `base`.

    Raises:
        ValueError: it is no URL of HTTP.
    """
    return parse_url(text if _HAS_SCHEME.match(text.strip()) else urljoin(str(base), text.strip()))


def origin_of(url: URL) -> Origin:
    """Return whom an absolute URL asks."""
    return url.scheme, url.host or "", url.port or 0


def host_of(url: URL) -> str:
    """Return the host as people write it: with the port unless it is the scheme's own."""
    return (url.host_port_subcomponent or "").lower()


def shown(url: StrOrURL) -> str:
    """Return a URL without what may be secret: user, password, query. Takes any text."""
    text = re.split("[?#]", str(url), maxsplit=1)[0]
    return "".join(char if char.isprintable() else "?" for char in _USER.sub("//", text, count=1))
