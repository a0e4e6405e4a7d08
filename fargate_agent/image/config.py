"""The configuration of an image: what to run, and which layers it is made of.

Source: OCI image specification, config.md; Docker's image specification has the same fields.
"""

from dataclasses import dataclass

from fargate_agent.drivers import ImageConfig
from fargate_agent.image.digest import is_digest
from fargate_agent.image.document import InvalidDocumentError, parse_document
from fargate_agent.image.manifest import PlatformError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What is read of an image's configuration."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    """Digest of each layer when it isn't compressed."""


def parse_config(data: bytes, architecture: str | None, layers: int) -> ConfigFile:
    """Read the configuration of an image that has so many layers.

    Raises:
        PlatformError: the image is for another platform than Linux on `architecture`; None takes
            any.
        InvalidDocumentError: something in it is missing or wrong.
    """
    document = parse_document("image config", data)
    platform = (document.text("os", "linux"), document.text("architecture", architecture or ""))
    if architecture and platform != ("linux", architecture):
        raise PlatformError(architecture)
    diff_ids = document.child("rootfs").texts("diff_ids")
    if len(diff_ids) != layers or not all(map(is_digest, diff_ids)):
        raise InvalidDocumentError(
            f"image config: 'rootfs.diff_ids' does not name the {layers} layers of the manifest"
        )
    run = document.child("config")
    return ConfigFile(
        config=ImageConfig(
            entrypoint=run.texts("Entrypoint"),
            command=run.texts("Cmd"),
            environment=run.texts("Env"),
            user=run.text("User", ""),
            working_directory=run.text("WorkingDir", ""),
            stop_signal=run.text("StopSignal", ""),
        ),
        diff_ids=diff_ids,
    )
