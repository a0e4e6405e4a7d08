"""Digests: how blobs, manifests and snapshots are named.

Source: OCI image specification, descriptor.md (digests) and config.md (chain ids).
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Final

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether it is a digest of the one kind that is accepted here, SHA-256."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """Name a blob by its content."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Name the file system after each layer: a layer's name depends on all below it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
