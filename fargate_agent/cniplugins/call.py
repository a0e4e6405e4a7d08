"""What a runtime asks a plugin for: environment and configuration, checked.

Source: containernetworking/cni, SPEC.md 1.1.0, sections 2 and 3; pkg/utils/utils.go and
pkg/skel/skel.go for what is said of wrong ones.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fargate_agent.cniplugins.errors import (
    DECODE_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    UNKNOWN_CONTAINER,
    CniError,
)
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.journal import Journal
from fargate_agent.cniplugins.results import Result, parse_result
from fargate_agent.cniplugins.versions import SINCE, VERSIONS, is_since

NETNS_DIR: Final = "/run/netns"
"""Where a namespace is that is named and not given by its path. Source: ip-netns(8)."""
MAX_IFNAME_CHARS: Final = 15
"""Source: Linux, include/uapi/linux/if.h, IFNAMSIZ."""
OLDEST: Final = "0.1.0"
"""Of a configuration that says nothing. Source: libcni, `ConfigDecoder`."""

_REQUIRED: Final = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
}
_IDENTIFIER: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
"""What names of networks and containers are made of; the last three don't come first. To compile
this as a regular expression takes longer than to look."""
_ATTACHMENTS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""The name of now, and that of before."""


class Call(NamedTuple):
    """One call of a plugin."""

    verb: str
    config: Fields
    version: str
    """Of the configuration, and so of the answer."""
    network: str
    """Name of the network; empty if the configuration has none, as those of the ECS agent."""
    container_id: str
    """Empty for verbs that aren't about a container; the same with the next two."""
    netns: str
    """Path of the container's namespace. Of DEL it may be empty, or lead nowhere."""
    ifname: str
    args: Mapping[str, str]
    """What CNI_ARGS says."""
    path: str
    """Where other plugins are: directories, parted by colons."""
    stdin: bytes
    """The configuration as it came, for plugins that this one calls."""
    journal: Journal

    def previous(self) -> Result:
        """Return what ADD answered, or what the plugin before this one has.

        Raises:
            CniError: the configuration has none.
        """
        if not self.config.has("prevResult"):
            raise CniError("Required prevResult missing", INVALID_CONFIG)
        return parse_result(self.config.fields("prevResult").raw, "prevResult")

    def attachments(self) -> frozenset[tuple[str, str]]:
        """Return what GC has to leave: ids of containers with names of interfaces.

        Raises:
            CniError: the configuration doesn't say. Then nothing may be removed.
        """
        for name in _ATTACHMENTS:
            if name in self.config.raw:
                listed = self.config.list_of_fields(name)
                return frozenset(
                    (one.required("containerID"), one.required("ifname")) for one in listed
                )
        raise CniError(f"missing required parameter {_ATTACHMENTS[0]}", INVALID_CONFIG)


def read_call(environment: Mapping[str, str], stdin: bytes, journal: Journal) -> Call:
    """Read what a runtime asks for.

    Raises:
        CniError: it is nothing that a plugin can do.
    """
    verb = environment["CNI_COMMAND"]
    if verb not in _REQUIRED:
        raise CniError(f"unknown CNI_COMMAND: {verb}", INVALID_ENVIRONMENT)
    missing = [name for name in _REQUIRED[verb] if not environment.get(name)]
    if missing:
        text = f"required env variables [{','.join(missing)}] missing"
        raise CniError(text, INVALID_ENVIRONMENT)
    config = Fields(read_config(stdin))
    version = read_version(config)
    if verb in SINCE and not is_since(version, SINCE[verb]):
        raise CniError(f"config version does not allow {verb}", INCOMPATIBLE_VERSION)
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    is_of_container = "CNI_IFNAME" in _REQUIRED[verb]
    if is_of_container:
        _check_container_id(container_id)
        _check_ifname(ifname)
    return Call(
        verb=verb,
        config=config,
        version=version,
        network=_read_network(config),
        container_id=container_id if is_of_container else "",
        netns=_read_netns(environment) if is_of_container else "",
        ifname=ifname if is_of_container else "",
        args=_read_args(environment.get("CNI_ARGS", "")),
        path=environment.get("CNI_PATH", ""),
        stdin=stdin,
        journal=journal,
    )


def read_config(stdin: bytes) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        CniError: it isn't a JSON object.
    """
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        message = f"error unmarshall stdin: {error}"
        raise CniError(message, DECODE_FAILURE) from error
    if not isinstance(config, dict):
        raise CniError("error unmarshall stdin: this is no JSON object", DECODE_FAILURE)
    return config


def read_version(config: Fields) -> str:
    """Return the version of a configuration.

    Raises:
        CniError: it isn't one that plugins here speak.
    """
    version = config.text("cniVersion") or OLDEST
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        text = f'incompatible CNI versions: config is "{version}", plugin supports {supported}'
        raise CniError(text, INCOMPATIBLE_VERSION)
    return version


def check_ifname(name: str) -> str | None:
    """Return what is wrong with the name of an interface, if anything is."""
    if not name:
        return "interface name is empty"
    if len(name.encode()) > MAX_IFNAME_CHARS:
        return "interface name is too long"
    if name in {".", ".."}:
        return "interface name is . or .."
    if any(one in "/:" or one.isspace() or not one.isprintable() for one in name):
        return "interface name contains / or : or whitespace characters"
    return None


def _is_identifier(text: str) -> bool:
    return text[:1] not in "_.-" and _IDENTIFIER.issuperset(text)


def _check_ifname(name: str) -> None:
    wrong = check_ifname(name)
    if wrong is not None:
        raise CniError(wrong, INVALID_ENVIRONMENT)


def _check_container_id(container_id: str) -> None:
    if not _is_identifier(container_id):
        raise CniError(f"invalid characters in containerID: {container_id}", INVALID_ENVIRONMENT)


def _read_network(config: Fields) -> str:
    name = config.text("name")
    if name and not _is_identifier(name):
        raise CniError(f"invalid characters found in network name: {name}", INVALID_CONFIG)
    return name


def _read_args(text: str) -> dict[str, str]:
    args = {}
    for pair in filter(None, text.split(";")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise CniError(f"CNI_ARGS: invalid pair {pair!r}", INVALID_ENVIRONMENT)
        args[name.strip()] = value.strip()
    return args


def _read_netns(environment: Mapping[str, str]) -> str:
    """Return the path of the container's namespace, which is there unless the verb is DEL.

    Source: amazon-vpc-cni-plugins, network/netns, for a name without a path.
    """
    given = environment.get("CNI_NETNS", "")
    path = f"{NETNS_DIR}/{given}" if given and "/" not in given else given
    found = _identify(path)
    own = _identify("/proc/self/ns/net")
    if environment["CNI_COMMAND"] != "DEL":
        if found is None:
            raise CniError(f"no network namespace at {path}", UNKNOWN_CONTAINER)
        if own is not None and found[0] != own[0]:
            raise CniError(f"{path} is no network namespace", INVALID_NETNS)
    if found is not None and found == own and not environment.get("CNI_NETNS_OVERRIDE"):
        text = "plugin's netns and netns from CNI_NETNS should not be the same"
        raise CniError(text, INVALID_NETNS)
    return path if found is not None and own is not None and found[0] == own[0] else ""


def _identify(path: str) -> tuple[int, int] | None:
    """Return what tells a namespace from others: its file system, and its number there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes too long to load
    except OSError:
        return None
    return status.st_dev, status.st_ino
