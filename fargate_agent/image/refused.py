"""What a registry or an archive may hold in the place of an image that runs here, called by name.

All functions return None for what isn't refused.
"""

from typing import Final

SCHEMA_1_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
"""Source: Docker registry, manifest version 2, schema 1."""

_FOREIGN_LAYERS: Final = (
    "application/vnd.docker.image.rootfs.foreign.diff.",
    "application/vnd.oci.image.layer.nondistributable.v1.",
)
"""Layers whose bytes are kept outside of the registry. Source: Docker registry, manifest version 2,
schema 2, "foreign layers"; OCI image specification, layer.md, "Non-Distributable Layers"."""

_EMPTY_CONFIG: Final = "application/vnd.oci.empty.v1+json"
"""Configuration of what needs none. Source: OCI image specification, manifest.md."""

_ARTIFACTS: Final = {
    "application/vnd.cncf.helm.config.v1+json": "a Helm chart",
    "application/vnd.cncf.flux.config.v1+json": "an artifact of Flux",
    "application/vnd.wasm.config.v0+json": "a WebAssembly module",
    "application/vnd.wasm.config.v1+json": "a WebAssembly module",
    "application/vnd.docker.plugin.v1+json": "a plugin of Docker",
}
"""By the type of the configuration. Source: Helm, pkg/registry/constants.go; the Flux project,
internal/oci; the CNCF's WASM OCI artifact layout; Docker registry, manifest version 2, schema 2."""


def name_manifest(media_type: str, schema_version: object) -> str | None:
    """Say what is wrong with a manifest that isn't of schema 2."""
    if media_type in SCHEMA_1_TYPES or schema_version == 1:
        return (
            "the image has a manifest of Docker's schema 1, which is not supported: rebuild the "
            "image, or copy it with 'skopeo copy --format v2s2'"
        )
    return None


def name_artifact(config_type: str, artifact_type: str) -> str | None:
    """Say what a manifest describes that isn't a container image."""
    if config_type in _ARTIFACTS:
        return f"this is {_ARTIFACTS[config_type]} ('{config_type}'), not a container image"
    if artifact_type or config_type == _EMPTY_CONFIG:
        kind = artifact_type or config_type
        return f"this is an OCI artifact of type '{kind}', not a container image"
    return None


def name_layer(media_type: str) -> str | None:
    """Say what is wrong with a layer that can't be fetched from the registry."""
    if media_type.startswith(_FOREIGN_LAYERS):
        return (
            f"the image has a foreign layer ('{media_type}'), whose content is not in the "
            "registry: rebuild the image upon a base whose layers are"
        )
    return None
