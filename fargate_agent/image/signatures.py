"""Signatures of images as cosign makes them: "simple signing", found by a tag beside the image.

The signatures of the manifest or index `sha256:<hex>` are the layers of the image with the tag
`sha256-<hex>.sig` in the same repository. Each layer is a JSON document that names the digest; its
signature, of the bytes of the document, is an annotation.

As cosign does by default, the name of the image in that document isn't compared: a signature counts
in whichever repository it lies. Certificates, transparency logs and signatures that are referrers
(OCI 1.1) are not looked at.

Source: cosign, specs/SIGNATURE_SPEC.md; sigstore, pkg/signature/payload/payload.go.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.containerd.types import Descriptor
from fargate_agent.egress.retry import GaveUpError
from fargate_agent.image.document import InvalidDocumentError, parse_document, tidy
from fargate_agent.image.manifest import parse_descriptor
from fargate_agent.image.registry.protocol import Registry

PAYLOAD_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION: Final = "dev.cosignproject.cosign/signature"
CRITICAL_TYPE: Final = "cosign container image signature"
"""Source: sigstore, pkg/signature/payload/payload.go, `CosignSignatureType`."""

MAX_SIGNATURES: Final = 64
"""So many signatures of one image are looked at."""
MAX_PAYLOAD_BYTES: Final = 64 << 10
MAX_KEY_FILE_BYTES: Final = 64 << 10
LEAST_RSA_BITS: Final = 2048
MAX_TOLD_CHARS: Final = 100

_NOT_FOUND: Final = "not found"
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class InvalidKeyError(ValueError):
    """A file has no public key that can verify signatures; the text says why."""


class UnsignedError(Exception):
    """No signature of an image was made by any of the keys; the text says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that may have signed images."""

    fingerprint: str
    """SHA-256 of its DER form, `sha256:…`."""
    key: Any
    """Of `cryptography`: RSA, ECDSA or Ed25519."""

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key has signed these bytes. Takes about 0.2 ms."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            else:
                self.key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What somebody has signed, and the signature; neither is trusted yet."""

    payload: bytes
    signature: bytes


def read_keys(file: Path) -> tuple[PublicKey, ...]:
    """Read the public keys of a PEM file, of which there is at least one. Blocks.

    Raises:
        InvalidKeyError: the file can't be read, or has something else than public keys.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise InvalidKeyError(error.strerror or "it can't be read") from error
    blocks = list(_PEM.finditer(data))
    if not blocks:
        raise InvalidKeyError("it has no public key in PEM")
    return tuple(_read_key(match[1].decode(), match[0]) for match in blocks)


def _read_key(label: str, block: bytes) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if "PRIVATE KEY" in label:
        raise InvalidKeyError("it has a private key: only the public key belongs there")
    if label != "PUBLIC KEY":
        raise InvalidKeyError(f"it has a '{label}' where a 'PUBLIC KEY' is needed")
    try:
        key = serialization.load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKeyError("its public key can't be read") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise InvalidKeyError("its key is neither ECDSA, RSA nor Ed25519")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise InvalidKeyError(f"its RSA key has less than {LEAST_RSA_BITS} bits")
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(fingerprint=f"sha256:{hashlib.sha256(der).hexdigest()}", key=key)


async def fetch_signatures(registry: Registry, digest: str) -> tuple[Signature, ...]:
    """Return the signatures of a manifest or index that lie beside it; none if there are none.

    Raises:
        GaveUpError: the registry could not be asked.
        InvalidDocumentError: what lies there is not as cosign makes it.
    """
    beside = registry.beside(f"{digest.replace(':', '-')}.sig")
    try:
        resolved = await beside.resolve()
    except GaveUpError as error:
        if str(error) == _NOT_FOUND:
            return ()
        raise
    data = resolved.data if resolved.data is not None else await beside.read(resolved.target)
    return tuple(
        [
            Signature(payload=await beside.read(descriptor), signature=signature)
            for descriptor, signature in _parse_layers(data)
        ]
    )


def _parse_layers(data: bytes) -> list[tuple[Descriptor, bytes]]:
    """Return each payload, to be fetched, with its signature; what is something else is left out.

    Raises:
        InvalidDocumentError: the manifest makes no sense, or has too many signatures.
    """
    layers = parse_document("manifest of signatures", data).children("layers")
    found = []
    for layer in map(parse_descriptor, layers):
        if layer.media_type != PAYLOAD_TYPE or layer.size > MAX_PAYLOAD_BYTES:
            continue
        try:
            signature = base64.b64decode(layer.annotations.get(ANNOTATION, ""), validate=True)
        except binascii.Error:
            continue
        if signature:
            found.append((layer, signature))
    if len(found) > MAX_SIGNATURES:
        raise InvalidDocumentError(
            f"there are {len(found)} signatures, and {MAX_SIGNATURES} at most are looked at"
        )
    return found


def find_signer(
    signatures: Sequence[Signature], keys: Iterable[PublicKey], digest: str
) -> PublicKey:
    """Return the first key that has signed the manifest or index with this digest. Blocks.

    Raises:
        UnsignedError: none has.
    """
    others = set[str]()
    for key in keys:
        for one in signatures:
            if not key.verifies(one.signature, one.payload):
                continue
            try:
                signed = _read_digest(one.payload)
            except InvalidDocumentError as error:
                signed = str(error)
            if signed == digest:
                return key
            others.add(signed)
    if others:
        raise UnsignedError(
            f"what the key has signed is another one: {tidy(min(others), MAX_TOLD_CHARS)}"
        )
    if signatures:
        raise UnsignedError(f"none of its {len(signatures)} signatures was made by the key")
    raise UnsignedError("there is no signature of it in the registry")


def _read_digest(payload: bytes) -> str:
    """Return the digest that a payload speaks of. It is read when its signature was verified.

    Raises:
        InvalidDocumentError: it speaks of something else than an image.
    """
    critical = parse_document("payload of the signature", payload).child("critical")
    if critical.text("type", "") != CRITICAL_TYPE:
        raise InvalidDocumentError(f"{critical.what}: 'type' is not '{CRITICAL_TYPE}'")
    return critical.child("image").text("docker-manifest-digest")
