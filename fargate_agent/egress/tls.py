"""What is wrong with a TLS connection, in the words of Go's library, which people search for.

Source of the texts: Go, crypto/tls and crypto/x509. Source of the codes: OpenSSL, x509_vfy.h.
"""

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final


class TlsFault(Enum):
    """What another try, or the operator, can do about it."""

    BROKEN = auto()
    """The connection broke off."""
    REFUSED = auto()
    """The server and this client don't agree."""
    UNTRUSTED = auto()
    """The certificate is of an authority that isn't trusted."""
    NO_TLS = auto()
    """The server doesn't speak TLS."""


@dataclass(frozen=True, slots=True)
class TlsFailure:
    """Why a TLS connection isn't there."""

    fault: TlsFault
    text: str


_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
"""Codes of certificates whose authority isn't trusted: `X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT`,
`_SELF_SIGNED_CERT_IN_CHAIN`, `_UNABLE_TO_GET_ISSUER_CERT_LOCALLY` and
`_UNABLE_TO_VERIFY_LEAF_SIGNATURE`. OpenSSL says so first, of one that has expired too."""

_EXPIRED: Final = frozenset({9, 10})
"""`X509_V_ERR_CERT_NOT_YET_VALID` and `_CERT_HAS_EXPIRED`, the server's or an authority's."""

_OTHER_NAME: Final = frozenset({62, 64})
"""`X509_V_ERR_HOSTNAME_MISMATCH` and `_IP_ADDRESS_MISMATCH`."""

_NAME: Final = re.compile(r"not valid for '(.+)'")
"""In the message of such an error. Source: CPython, Modules/_ssl.c,
`fill_and_set_sslerror`."""

_WITHOUT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)
"""What OpenSSL 1.1 to 3.5 call bytes that are no TLS record."""

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)|TLSV1_(UNRECOGNIZED_NAME)")
_MAY_PASS: Final = frozenset({"INTERNAL_ERROR", "CLOSE_NOTIFY", "USER_CANCELLED", "DECRYPT_ERROR"})
_BROKEN: Final = frozenset({"UNEXPECTED_EOF_WHILE_READING", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"})


def explain_tls(error: ssl.SSLError) -> TlsFailure:
    """Say what is wrong, and of which kind it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error)
    reason = getattr(error, "reason", "") or ""  # absent where Python made the error
    if reason in _WITHOUT_TLS:
        return TlsFailure(TlsFault.NO_TLS, "http: server gave HTTP response to HTTPS client")
    if alert := _ALERT.fullmatch(reason):
        name = alert[1] or alert[2]
        fault = TlsFault.BROKEN if name in _MAY_PASS else TlsFault.REFUSED
        return TlsFailure(fault, f"remote error: tls: {name.lower().replace('_', ' ')}")
    if reason in _BROKEN or isinstance(error, ssl.SSLEOFError):
        return TlsFailure(TlsFault.BROKEN, "EOF")
    said = reason.lower().replace("_", " ") or "handshake failure"
    return TlsFailure(TlsFault.REFUSED if reason else TlsFault.BROKEN, f"tls: {said}")


def _explain_certificate(error: ssl.SSLCertVerificationError) -> TlsFailure:
    what = "tls: failed to verify certificate: x509"
    code, said = getattr(error, "verify_code", 0), getattr(error, "verify_message", "")
    if code in _UNTRUSTED:
        text = f"{what}: certificate signed by unknown authority"
        return TlsFailure(TlsFault.UNTRUSTED, text)
    if code in _EXPIRED:
        text = (
            f"certificate has expired or is not yet valid: current time "
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}; set the clock of this machine if that is "
            "wrong, or renew the certificate of the server, or that of its authority"
        )
    elif code in _OTHER_NAME and (name := _NAME.search(said)):
        text = (
            f"certificate is valid for other names, not {name[1]}; ask the server by a name that "
            f"its certificate has, or give it a certificate for {name[1]}"
        )
    else:
        text = said.rstrip(".") or "certificate is not valid"
    return TlsFailure(TlsFault.REFUSED, f"{what}: {text}")
