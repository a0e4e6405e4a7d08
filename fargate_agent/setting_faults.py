"""Which settings of the agent name something that isn't on this machine, or isn't what they need.

An agent begins without it. What needs it then fails, task by task, so `fargate-agent --check` and a
reload tell it before.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.aws.machine_keys import read_machine_keys
from fargate_agent.egress.authorities import AuthoritiesError, read_authorities
from fargate_agent.files import find_obstacle
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.registry.auth import check_credentials
from fargate_agent.image.signatures import InvalidKeyError, read_keys
from fargate_agent.settings import AgentSettings

LOGGERS: Final = ("json-file", "logger")
"""The programs of `shim_loggers_dir`."""

DIRECTORIES: Final = ("state_dir", "netns_dir", "runc_root")

SNAPSHOTTERS: Final = frozenset(
    {
        "blockfile",
        "btrfs",
        "devmapper",
        "erofs",
        "fuse-overlayfs",
        "native",
        "nydus",
        "overlaybd",
        "overlayfs",
        "soci",
        "stargz",
        "zfs",
    }
)
"""Source: containerd, docs/snapshotters/README.md, "Snapshotter" and the projects it names."""

OTEL_MISSING: Final = (
    "needs OpenTelemetry's library, which isn't installed: pip install 'fargate-agent[otel]'"
)

CONTAINERD_PATIENCE_S: Final = 2
"""How long containerd is asked for its snapshotters."""

Fault = tuple[str, str]
"""The name of a setting, and what is wrong with it."""


def find_faults(settings: AgentSettings) -> Iterator[Fault]:
    """Yield every setting that can't work here; blocks."""
    yield from _find_directory_faults(settings)
    yield from _find_registry_faults(settings)
    if settings.aws_credentials_file is not None:
        try:
            read_machine_keys(settings.aws_credentials_file, datetime.now(UTC))
        except RoleError as error:
            yield "aws_credentials_file", str(error).removeprefix("aws_credentials_file ")
    yield from _find_flow_log_faults(settings)
    yield from _find_key_faults(settings)
    yield from find_otlp_fault(settings)
    known = _read_snapshotters(settings) or SNAPSHOTTERS
    if settings.snapshotter not in known:
        yield "snapshotter", f"must be one of {', '.join(sorted(known))}"


def _find_flow_log_faults(settings: AgentSettings) -> Iterator[Fault]:
    said = settings.flow_logs
    if said is None:
        return
    if said.file is not None and not said.file.parent.is_dir():
        yield "flow_logs", f"file: {said.file.parent} is not a directory"
    if said.credentials_file is not None:
        try:
            read_machine_keys(said.credentials_file, datetime.now(UTC), name="credentials_file")
        except RoleError as error:
            yield "flow_logs", str(error)


def _find_key_faults(settings: AgentSettings) -> Iterator[Fault]:
    for prefix, policy in settings.image_signatures.items():
        if policy.key is None:
            continue
        try:
            read_keys(policy.key)
        except InvalidKeyError as error:
            yield "image_signatures", f'"{prefix}": {policy.key}: {error}'


def _find_registry_faults(settings: AgentSettings) -> Iterator[Fault]:
    if settings.registry_auth_file is not None:
        try:
            check_credentials(settings.registry_auth_file)
        except InvalidDocumentError as error:
            yield "registry_auth_file", f"{settings.registry_auth_file}: {error}"
    for registry, own in settings.registries.items():
        if own.ca_file is not None:
            try:
                read_authorities(own.ca_file)
            except AuthoritiesError as error:
                yield "registries", f'"{registry}".ca_file: {own.ca_file}: {error}'


def find_otlp_fault(settings: AgentSettings) -> Iterator[Fault]:
    """Yield the setting for traces if nothing is there that makes them; nothing is loaded."""
    if settings.otlp_endpoint is None:
        return
    with suppress(ModuleNotFoundError):
        if find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk"):
            return
    yield "otlp_endpoint", OTEL_MISSING


def _read_snapshotters(settings: AgentSettings) -> frozenset[str]:
    """Return the snapshotters of the containerd that runs; none where none answers."""
    is_there = settings.containerd_address.is_socket()
    return asyncio.run(_ask_snapshotters(settings)) if is_there else frozenset()


async def _ask_snapshotters(settings: AgentSettings) -> frozenset[str]:
    from fargate_agent.containerd.client import Containerd  # many modules
    from fargate_agent.containerd.errors import ContainerdError

    async with Containerd(settings.containerd_address, settings.containerd_namespace) as containerd:
        with suppress(ContainerdError, TimeoutError):
            async with asyncio.timeout(CONTAINERD_PATIENCE_S):
                found = await containerd.introspection.snapshotters()
                return frozenset(name for name, fault in found.items() if fault is None)
    return frozenset()


def _find_directory_faults(settings: AgentSettings) -> Iterator[Fault]:
    for key in DIRECTORIES:
        directory: Path | None = getattr(settings, key)
        if directory is not None and (obstacle := find_obstacle(directory)):
            yield key, f"{obstacle} is not a directory"
    for key, socket in (
        ("socket", settings.socket),
        ("containerd_address", settings.containerd_address),
    ):
        if obstacle := find_obstacle(socket.parent):
            yield key, f"{obstacle} is not a directory"
        elif socket.exists() and not socket.is_socket():
            yield key, f"{socket} is not a socket"
    for name in LOGGERS:
        if not os.access(program := settings.shim_loggers_dir / name, os.X_OK):
            yield "shim_loggers_dir", f"there is no program {program}"
