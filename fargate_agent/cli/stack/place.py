"""Find a place for a stack on this machine: a port, a range of addresses, a containerd."""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from fargate_agent.cli.connection import DEFAULT_REGION
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack.choices import Choices, read_choices, write_choices
from fargate_agent.cli.stack.claims import Claims
from fargate_agent.cli.stack.ports import choose_listen
from fargate_agent.cli.stack.programs import Place
from fargate_agent.cli.stack.ranges import choose_range, read_routes

DEFAULT_NAMESPACE: Final = "fargate"


def find_place(
    layout: Layout,
    claims: Claims,
    *,
    listen: str | None,
    vpc_cidr: str | None,
    containerd: Path | None,
) -> Place:
    """Choose what the stack doesn't share with others, claim it, and remember it for the next run.

    What isn't given is looked for in `control-plane.toml`, then chosen.

    Raises:
        CliError: what was asked for is taken, or makes no sense.
    """
    remembered = read_choices(layout.choices)
    settings = read_file_settings(layout.root / "control-plane.toml")
    network = choose_range(
        _parse_range(vpc_cidr or settings.get("vpc_cidr")),
        _parse_range(remembered.vpc_cidr),
        read_routes(),
        claims.take_range,
    )
    place = Place(
        listen=choose_listen(listen or settings.get("listen"), remembered.listen, claims.take),
        vpc_cidr=str(network),
        region=choose_region(layout.root, settings),
        containerd_address=containerd.absolute() if containerd else layout.containerd_socket,
        containerd_namespace=_choose_namespace(layout, claims, containerd, remembered),
    )
    write_choices(
        layout.choices,
        Choices(
            listen=place.listen,
            vpc_cidr=place.vpc_cidr,
            containerd_namespace=place.containerd_namespace,
        ),
    )
    return place


def read_file_settings(file: Path) -> dict[str, Any]:
    """Read a file of settings; nothing, if it isn't there.

    Raises:
        CliError: it is not TOML.
    """
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CliError(f"{file}: {error}") from error


def _parse_range(text: object) -> IPv4Network | None:
    try:
        return None if text is None else IPv4Network(str(text))
    except ValueError as error:
        raise CliError(f"--vpc-cidr {text}: {error}") from error


def choose_region(root: Path, settings: Mapping[str, Any]) -> str:
    """Return the region of both programs; `settings` are those of the control plane.

    Raises:
        CliError: the agent was told another one, or the stack was in another one so far.
    """
    plane = os.environ.get("FARGATE_CONTROL_PLANE_REGION") or settings.get("region")
    own = read_file_settings(root / "agent.toml").get("region")
    agent = os.environ.get("FARGATE_AGENT_REGION") or own
    if plane and agent and plane != agent:
        raise CliError(
            f"a stack has one region, and its settings have two: {plane} for the control plane, "
            f"{agent} for the agent. Leave one out of control-plane.toml and agent.toml"
        )
    region = str(plane or agent or DEFAULT_REGION)
    if (old := _registered_region(root)) not in {None, region}:
        raise CliError(
            f"the stack in {root} was made for region {old}, and is to be in {region}: leave "
            "region as it was, or take another --state-dir"
        )
    return region


def _registered_region(root: Path) -> str | None:
    """Return the region where the stack's agent is registered; None if it never was."""
    try:
        return (root / "agent" / "container-instance-arn").read_text().split(":")[3]
    except (OSError, IndexError):
        return None


def _choose_namespace(
    layout: Layout, claims: Claims, containerd: Path | None, remembered: Choices
) -> str:
    """Two stacks that share a containerd must not share a namespace of it."""
    if wanted := os.environ.get("FARGATE_AGENT_CONTAINERD_NAMESPACE"):
        return wanted
    if containerd is None:
        return DEFAULT_NAMESPACE
    socket = hashlib.sha256(os.fsencode(containerd.resolve())).hexdigest()[:16]
    own = f"{DEFAULT_NAMESPACE}-{hashlib.sha256(os.fsencode(layout.root)).hexdigest()[:8]}"
    for name in (remembered.containerd_namespace, DEFAULT_NAMESPACE):
        if name and claims.take(f"containerd/{socket}/{name}"):
            return name
    return own
