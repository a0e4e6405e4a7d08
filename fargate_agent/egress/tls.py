"""What is wrong with a TLS connection, in the words of Go's library, which people search for.

Source of the texts: Go, crypto/tls and crypto/x509. Source of the codes: OpenSSL, x509_vfy.h.
"""

import re
import ssl
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class TlsFault(Enum):
    """What another try, or the operator, can do about it."""

    BROKEN = auto()
    """The connection broke off."""
    REFUSED = auto()
    """The server and this client don't agree."""
    UNTRUSTED = auto()
    """The certificate isn't one that this machine trusts."""
    NO_TLS = auto()
    """The server doesn't speak TLS."""


@dataclass(frozen=True, slots=True)
class TlsFailure:
    """Why a TLS connection isn't there."""

    fault: TlsFault
    text: str


_UNKNOWN_AUTHORITY: Final = "certificate signed by unknown authority"
_EXPIRED: Final = "certificate has expired or is not yet valid"
_CERTIFICATE_TEXTS: Final = {
    9: _EXPIRED,
    10: _EXPIRED,
    18: _UNKNOWN_AUTHORITY,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
}
"""By `X509_V_ERR_…`."""

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
        said = getattr(error, "verify_message", "") or "certificate is not valid"
        text = _CERTIFICATE_TEXTS.get(getattr(error, "verify_code", 0), said)
        return TlsFailure(
            TlsFault.UNTRUSTED, f"tls: failed to verify certificate: x509: {text.rstrip('.')}"
        )
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
