"""Signs requests to AWS.

Source: AWS, "Signature Version 4 signing process".
"""

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # Python 3.11
    from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore,no-redef]

ALGORITHM = "AWS4-HMAC-SHA256"
BLOCK_BYTES = 64
LARGE_BYTES = 64 * 1024
"""From this size on OpenSSL, which has TLS loaded already, is worth its 0.7 MB without TLS too: it
needs a sixth of the time, in which other threads run. Smaller requests are those of a quiet logger.
"""


class Keys:
    """Who signs; never written anywhere."""

    def __init__(self, access_key: str, secret_key: str, token: str, expires: str = "") -> None:
        self.access_key = access_key
        self.secret_key = secret_key
        self.token = token
        """Empty with keys that last."""
        self.expires = expires
        """Moment in UTC, as RFC 3339 writes it; empty: never."""


class Scope:
    """What a signature is good for."""

    def __init__(self, region: str, service: str) -> None:
        self.region = region
        self.service = service


def render_signature(
    scope: Scope, keys: Keys, path: str, headers: dict[str, str], body: bytes
) -> str:
    """Return the header `Authorization` for a POST without a query.

    Every one of `headers` is signed. `Host` and `X-Amz-Date` (e.g. `20260105T100007Z`) have to be
    there, and `X-Amz-Security-Token` if the keys have a token.
    """
    signed = sorted((name.lower(), value) for name, value in headers.items())
    names = ";".join(name for name, _ in signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed)
    request = f"POST\n{path}\n\n{lines}\n{names}\n{_hash_body(body)}"
    moment = dict(signed)["x-amz-date"]
    place = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = f"{ALGORITHM}\n{moment}\n{place}\n{sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + keys.secret_key.encode()
    for part in (*place.split("/"), text):
        key = _make_hmac(key, part.encode())
    return (
        f"{ALGORITHM} Credential={keys.access_key}/{place}, SignedHeaders={names}, "
        f"Signature={key.hex()}"
    )


def _hash_body(body: bytes) -> str:
    if len(body) >= LARGE_BYTES:
        try:
            from _hashlib import openssl_sha256

            return openssl_sha256(body).hexdigest()
        except ImportError:  # the interpreter was replaced while this one runs
            pass
    return str(sha256(body).hexdigest())


def _make_hmac(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256; `hmac` and `hashlib` cost 1 MB. Source: RFC 2104."""
    if len(key) > BLOCK_BYTES:
        key = sha256(key).digest()
    key = key.ljust(BLOCK_BYTES, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in key) + text).digest()
    digest: bytes = sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    return digest
