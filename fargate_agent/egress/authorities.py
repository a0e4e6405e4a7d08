"""Certificates that are trusted beside those of the machine. Blocks."""

import ssl
from pathlib import Path


class AuthoritiesError(Exception):
    """A file of certificates can't be used. The text doesn't name the file."""


def read_authorities(file: Path) -> ssl.SSLContext:
    """Return a context that trusts what this machine trusts, and the certificates of a PEM file.

    A certificate in the file is trusted whether it is of an authority or of the server itself.

    Raises:
        AuthoritiesError: the file can't be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise AuthoritiesError("the file holds no certificate in PEM form") from error
    except OSError as error:
        raise AuthoritiesError(error.strerror or str(error)) from error
    return context
