import ssl

import pytest

from fargate_agent.egress.tls import TlsFault, explain_tls


def failed(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:992)")
    error.reason = reason
    return error


def unverified(code: int, message: str) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "fault", "text"),
    [
        pytest.param(
            unverified(20, "unable to get local issuer certificate"),
            TlsFault.UNTRUSTED,
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            id="private CA",
        ),
        pytest.param(
            unverified(62, "Hostname mismatch, certificate is not valid for 'a.test'."),
            TlsFault.REFUSED,
            "tls: failed to verify certificate: x509: certificate is valid for other names, not"
            " a.test; ask the server by a name that its certificate has, or give it a certificate"
            " for a.test",
            id="another host",
        ),
        pytest.param(
            unverified(26, "unsuitable certificate purpose"),
            TlsFault.REFUSED,
            "tls: failed to verify certificate: x509: unsuitable certificate purpose",
            id="another fault of a certificate",
        ),
        pytest.param(
            failed("WRONG_VERSION_NUMBER"),
            TlsFault.NO_TLS,
            "http: server gave HTTP response to HTTPS client",
            id="plain HTTP",
        ),
        pytest.param(
            failed("SSLV3_ALERT_HANDSHAKE_FAILURE"),
            TlsFault.REFUSED,
            "remote error: tls: handshake failure",
            id="alert",
        ),
        pytest.param(
            failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            TlsFault.REFUSED,
            "remote error: tls: certificate required",
            id="alert of TLS 1.3",
        ),
        pytest.param(
            failed("TLSV1_ALERT_INTERNAL_ERROR"),
            TlsFault.BROKEN,
            "remote error: tls: internal error",
            id="alert that may pass",
        ),
        pytest.param(
            failed("UNEXPECTED_EOF_WHILE_READING"), TlsFault.BROKEN, "EOF", id="broken off"
        ),
        pytest.param(
            failed("NO_PROTOCOLS_AVAILABLE"),
            TlsFault.REFUSED,
            "tls: no protocols available",
            id="any other",
        ),
        pytest.param(ssl.SSLError(), TlsFault.BROKEN, "tls: handshake failure", id="none"),
    ],
)
def test_failure_is_said_in_known_words(error: ssl.SSLError, fault: TlsFault, text: str) -> None:
    failure = explain_tls(error)

    assert (failure.fault, failure.text) == (fault, text)
