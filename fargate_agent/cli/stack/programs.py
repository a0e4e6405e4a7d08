"""The programs of a stack: what each is told. Decides, and writes nothing."""

import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack.children import Program
from fargate_agent.cli.stack.keys import Key
from fargate_agent.cli.stack.ports import client_url
from fargate_agent.setting_values import check_host_port

CONTROL_PLANE_STOP_S: Final = 10
AGENT_STOP_S: Final = 15
CONTAINERD_STOP_S: Final = 10
DISABLED_PLUGINS: Final = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
"""What a stack has no use for; `opt` and `nri` would also make directories outside of it.

Source: `ctr plugins ls` of containerd 1.6 and 2.0.
"""
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where containerd finds its shim and runC, also when the caller's PATH lacks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stack is on this machine."""

    listen: str
    vpc_cidr: str
    region: str
    containerd_address: Path
    containerd_namespace: str


def containerd_program(layout: Layout) -> Program:
    """The containerd that belongs to the stack alone.

    Raises:
        CliError: it isn't installed.
    """
    path = shutil.which("containerd", path=_path(os.environ))
    if path is None:
        raise CliError("containerd is not installed; install it, or name a socket by --containerd")
    return Program(
        name="containerd",
        argv=(path, "--config", str(layout.containerd / "config.toml")),
        env={**os.environ, "PATH": _path(os.environ)},
        log=layout.logs / "containerd.log",
        stop_timeout_s=CONTAINERD_STOP_S,
    )


def render_containerd_config(layout: Layout) -> str:
    """Settings of that containerd, in version 2 of the format: 1.6 to 2.x read it."""

    def quote(text: object) -> str:
        return json.dumps(str(text))

    plugins = "".join(f"  {quote(name)},\n" for name in DISABLED_PLUGINS)
    return (
        "version = 2\n"
        f"root = {quote(layout.containerd / 'root')}\n"
        f"state = {quote(layout.containerd / 'state')}\n"
        f"disabled_plugins = [\n{plugins}]\n\n"
        "[grpc]\n"
        f"address = {quote(layout.containerd_socket)}\n"
        "uid = 0\n"
        "gid = 0\n"
    )


def control_plane_program(
    layout: Layout,
    place: Place,
    aws: Mapping[str, str] | None = None,
    withheld: Collection[str] = (),
) -> Program:
    """The control plane, which is told what `aws` says, and gets no variable that is withheld.

    Its other settings come from the environment and `control-plane.toml`.
    """
    told = {
        "LISTEN": place.listen,
        "STATE_DIR": str(layout.control_plane),
        "VPC_CIDR": place.vpc_cidr,
        "REGION": place.region,
        **(aws or {}),
        **_config(layout.root / "control-plane.toml"),
    }
    return Program(
        name="fargate-control-plane",
        argv=(_beside_us("fargate-control-plane"),),
        env=_environment("FARGATE_CONTROL_PLANE_", told, withheld),
        log=layout.logs / "fargate-control-plane.log",
        stop_timeout_s=CONTROL_PLANE_STOP_S,
    )


def agent_program(
    layout: Layout,
    place: Place,
    key: Key,
    aws: Mapping[str, str] | None = None,
    withheld: Collection[str] = (),
) -> Program:
    """The agent, which is told what `aws` says, and gets no variable that is withheld.

    Its other settings come from the environment and `agent.toml`.
    """
    told = {
        "CONTROL_PLANE": client_url(place.listen),
        "ACCESS_KEY_ID": key.access_key_id,
        "SECRET_ACCESS_KEY": key.secret_access_key,
        "REGION": place.region,
        "SOCKET": str(layout.agent_socket),
        "CONTAINERD_ADDRESS": str(place.containerd_address),
        "CONTAINERD_NAMESPACE": place.containerd_namespace,
        "STATE_DIR": str(layout.agent),
        "NETNS_DIR": str(layout.netns),
        "RUNC_ROOT": str(layout.containerd / "runc"),
        **(aws or {}),
        **_config(layout.root / "agent.toml"),
    }
    return Program(
        name="fargate-agent",
        argv=(_beside_us("fargate-agent"),),
        env=_environment("FARGATE_AGENT_", told, withheld),
        log=layout.logs / "fargate-agent.log",
        stop_timeout_s=AGENT_STOP_S,
    )


def tell_host_ports(ports: Collection[str]) -> dict[str, str]:
    """Return what the agent is told of ports of the machine. Without any, its own settings count.

    Raises:
        CliError: one is none.
    """
    for port in ports:
        try:
            check_host_port(port)
        except ValueError as error:
            raise CliError(f"--host-port {port}: {error}") from None
    return {"HOST_PORTS": ",".join(ports)} if ports else {}


def look_program(layout: Layout | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """What looks at the machine without an agent, and its environment.

    Raises:
        CliError: it isn't installed.
    """
    argv = (_beside_us("fargate-agent"), "look")
    if layout is None:
        return argv, dict(os.environ)
    told = {
        "CONTAINERD_ADDRESS": str(layout.containerd_socket),
        "STATE_DIR": str(layout.agent),
        **_config(layout.root / "agent.toml"),
    }
    return argv, _environment("FARGATE_AGENT_", told)


def plan_connection(layout: Layout, place: Place, key: Key) -> Connection:
    """How clients on this machine reach the stack."""
    return Connection(
        endpoint=client_url(place.listen),
        region=place.region,
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
        agent_socket=layout.agent_socket,
    )


def client_env(layout: Layout, place: Place, key: Key) -> dict[str, str]:
    """The variables that lead AWS clients, and `fargate`, to the stack."""
    return {
        "AWS_ENDPOINT_URL_ECS": client_url(place.listen),
        "AWS_ENDPOINT_URL_EC2": client_url(place.listen),
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": client_url(place.listen),
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",  # else DiscoverInstances goes to `data-…`
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_REGION": place.region,
        "AWS_DEFAULT_REGION": place.region,
        "FARGATE_AGENT_SOCKET": str(layout.agent_socket),
    }


def _beside_us(name: str) -> str:
    """The path of a program that was installed together with this one.

    Raises:
        CliError: it isn't there.
    """
    for neighbour in (Path(sys.argv[0]).resolve(), Path(sys.executable)):
        program = neighbour.parent / name
        if os.access(program, os.X_OK):
            return str(program)
    raise CliError(f"{name} is not installed beside {sys.argv[0]}")


def _config(file: Path) -> dict[str, str]:
    return {"CONFIG": str(file)} if file.exists() else {}


def _environment(
    prefix: str, told: Mapping[str, str], withheld: Collection[str] = ()
) -> dict[str, str]:
    ours = {prefix + name: value for name, value in told.items()}
    given = {name: value for name, value in os.environ.items() if name not in withheld}
    return {**given, "PATH": _path(os.environ), **ours}


def _path(environ: Mapping[str, str]) -> str:
    return ":".join(filter(None, (environ.get("PATH"), _SYSTEM_PATH)))
