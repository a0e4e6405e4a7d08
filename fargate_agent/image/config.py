"""The configuration of an image: what to run, and which layers it is made of.

Source: OCI image specification, config.md; Docker's image specification has the same fields.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from fargate_agent.drivers import ImageConfig
from fargate_agent.image.digest import is_digest
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.manifest import PlatformError
from fargate_agent.image.platform import OS, parse_platform

_ROOTFS_TYPE: Final = "layers"
_TEXTS: Final = ("os", "architecture", "variant", "os.version", "author", "created")
_RUN_TEXTS: Final = ("User", "WorkingDir", "StopSignal")
_RUN_LISTS: Final = ("Entrypoint", "Cmd", "Env")
_RUN_OBJECTS: Final = ("ExposedPorts", "Volumes", "Healthcheck")
"""Members by their types. Source: OCI image specification, config.md; Docker's for the last."""


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
            any that is said.
        InvalidDocumentError: members are missing or wrong; the text names them all.
    """
    document = parse_document("image config", data)
    _check(document, layers, () if architecture else ("os", "architecture"))
    platform = parse_platform(
        document.text("os", OS),
        document.text("architecture", architecture or ""),
        document.text("variant", ""),
    )
    if architecture and (platform.os, platform.architecture) != (OS, architecture):
        raise PlatformError(architecture, [platform])
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
        diff_ids=document.child("rootfs").texts("diff_ids"),
    )


def _check(document: Document, layers: int, required: tuple[str, ...]) -> None:
    """Return if all members have the types of the specification, whether they are used or not."""
    faults = []
    for check in _checks(document, layers, required):
        try:
            check()
        except InvalidDocumentError as error:
            faults.append(str(error))
    if faults:
        raise InvalidDocumentError(", ".join(dict.fromkeys(faults)))


def _checks(
    document: Document, layers: int, required: tuple[str, ...]
) -> Iterator[Callable[[], object]]:
    for key in _TEXTS:
        yield partial(document.text, key, None if key in required else "")
    yield partial(document.texts, "os.features")
    yield partial(document.children, "history")
    yield partial(_check_rootfs, document, layers)
    try:
        run = document.child("config")
    except InvalidDocumentError:
        yield partial(document.child, "config")
        return
    for key in _RUN_TEXTS:
        yield partial(run.text, key, "")
    for key in _RUN_LISTS:
        yield partial(run.texts, key)
    for key in _RUN_OBJECTS:
        yield partial(run.child, key)
    yield partial(_check_labels, run)


def _check_labels(run: Document) -> None:
    labels = run.child("Labels")
    for key in labels.keys:
        labels.text(key, "")


def _check_rootfs(document: Document, layers: int) -> None:
    rootfs = document.child("rootfs")
    if rootfs.text("type", _ROOTFS_TYPE) != _ROOTFS_TYPE:
        raise InvalidDocumentError(f"{document.what}: 'rootfs.type' is not '{_ROOTFS_TYPE}'")
    diff_ids = rootfs.texts("diff_ids")
    if len(diff_ids) != layers or not all(map(is_digest, diff_ids)):
        raise InvalidDocumentError(
            f"{document.what}: 'rootfs.diff_ids' does not name the {layers} layers of the manifest"
        )
