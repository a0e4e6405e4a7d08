"""Every knob of the control plane, read once: environment, then the settings file, then default.

An unknown key is an error that names it, in the file as in the environment.
"""

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from fargate_agent import settings_file
from fargate_agent.controlplane.errors import StartError
from fargate_agent.settings_file import FileSettings, SettingsError

ENV_PREFIX: Final = "FARGATE_CONTROL_PLANE_"
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
DEFAULT_FILE: Final = Path("/etc/fargate/control-plane.toml")
DEFAULT_SUBNET: Final = "subnet-default"
DEFAULT_SUBNET_PREFIX: Final = 20
"""As in a default VPC of AWS. Source: Amazon VPC user guide, "Default VPCs"."""

MIN_SUBNET_PREFIX: Final = 16
MAX_SUBNET_PREFIX: Final = 28
"""Largest and smallest subnet. Source: Amazon VPC user guide, "Subnet CIDR blocks"."""


class SubnetSettings(BaseModel):
    """A subnet that tasks can be put into."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: Annotated[str, Field(pattern=r"^subnet-[a-z0-9-]{1,64}$")]
    cidr: IPv4Network
    kind: Literal["veth", "macvlan"] = "veth"
    parent: Annotated[str, Field(min_length=1, max_length=15)] | None = None
    """NIC of the host that a macvlan hangs on."""
    gateway: IPv4Address | None = None
    """None: the first address of the subnet."""
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    """Bytes."""
    dns: tuple[IPv4Address, ...] = ()
    """DNS servers of the tasks; empty: those of the agent's host."""
    availability_zone: str | None = None
    """None: the first zone of the region."""

    @model_validator(mode="after")
    def _check(self) -> "SubnetSettings":
        if not MIN_SUBNET_PREFIX <= self.cidr.prefixlen <= MAX_SUBNET_PREFIX:
            raise ValueError(
                f"{self.id}: cidr {self.cidr} must be between "
                f"/{MIN_SUBNET_PREFIX} and /{MAX_SUBNET_PREFIX}"
            )
        if (self.kind == "macvlan") != (self.parent is not None):
            raise ValueError(f"{self.id}: kind macvlan needs a parent, kind veth has none")
        ends = (self.cidr.network_address, self.cidr.broadcast_address)
        if self.gateway is not None and (self.gateway not in self.cidr or self.gateway in ends):
            raise ValueError(f"{self.id}: gateway {self.gateway} is not a host of {self.cidr}")
        return self


class SecurityGroupSettings(BaseModel):
    """A security group that RunTask may name. Its rules are not enforced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^sg-[a-z0-9-]{1,64}$")]


class ControlPlaneSettings(FileSettings):
    """Settings of `fargate-control-plane`; each is `FARGATE_CONTROL_PLANE_<NAME>` as well."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    listen: str = "http://127.0.0.1:51680"
    """Port 0 takes a free one; the URL in use is written to `<state_dir>/endpoint`."""
    state_dir: Path = Path("/var/lib/fargate-control-plane")
    keys_file: Path | None = None
    """None: `<state_dir>/keys.toml`."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    account: Annotated[str, Field(pattern=r"^\d{12}$")] = "000000000000"
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")] = "default"
    """Is there from the start, and meant when a request names none."""
    stopped_task_retention_s: Annotated[int, Field(ge=3600)] = 3600
    """How long a task can be described after it has stopped. Source: ECS API, ListTasks."""
    vpc_cidr: IPv4Network = IPv4Network("10.0.0.0/16")
    """Range of `vpc-default`; `subnet-default` is the first /20 of it."""
    subnets: tuple[SubnetSettings, ...] = ()
    """Beside `subnet-default`, or in its place if one has that id."""
    security_groups: tuple[SecurityGroupSettings, ...] = ()
    """Beside `sg-default`."""
    overcommit: bool = True
    """Whether the tasks of an instance may ask for more CPU and memory in sum than it has."""
    agent_grace_s: Annotated[float, Field(ge=0, le=45)] = 30
    """RunTask waits for an agent that was lost no longer ago than this, as if it restarts."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 30
    resend_s: Annotated[float, Field(gt=0)] = 10
    """When a message to an agent that was not acknowledged is sent again."""
    agent_read_timeout_s: Annotated[float, Field(gt=0)] = 180
    """A connection on which an agent is silent for so long is closed.
    Source: amazon-ecs-agent, ecs-agent/acs/session/session.go, read deadline."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"}:
            raise ValueError("must be http://HOST:PORT")
        if parts.port is None:
            raise ValueError("the port is missing")
        return value.rstrip("/")

    @field_validator("vpc_cidr")
    @classmethod
    def _check_vpc_cidr(cls, value: IPv4Network) -> IPv4Network:
        if value.prefixlen > MAX_SUBNET_PREFIX:
            raise ValueError(f"{value} is smaller than a /{MAX_SUBNET_PREFIX}")
        return value

    @model_validator(mode="after")
    def _check_subnets(self) -> "ControlPlaneSettings":
        subnets = self.all_subnets
        for position, subnet in enumerate(subnets):
            for other in subnets[:position]:
                if subnet.id == other.id:
                    raise ValueError(f"two subnets have the id {subnet.id}")
                if subnet.cidr.overlaps(other.cidr):
                    raise ValueError(
                        f"subnets {other.id} ({other.cidr}) and {subnet.id} ({subnet.cidr}) overlap"
                    )
        return self

    @property
    def all_subnets(self) -> tuple[SubnetSettings, ...]:
        """`subnet-default` and those that were set."""
        if any(subnet.id == DEFAULT_SUBNET for subnet in self.subnets):
            return self.subnets
        prefix = max(self.vpc_cidr.prefixlen, DEFAULT_SUBNET_PREFIX)
        cidr = next(self.vpc_cidr.subnets(new_prefix=prefix))
        return (SubnetSettings(id=DEFAULT_SUBNET, cidr=cidr), *self.subnets)

    @property
    def keys_path(self) -> Path:
        """Where the keys are."""
        return self.keys_file or self.state_dir / "keys.toml"


def read_settings(file: Path | None, listen: str | None = None) -> ControlPlaneSettings:
    """Read the settings; a file that isn't there counts as empty unless it was asked for.

    Raises:
        StartError: a key is unknown, a value is wrong, or the file can't be read.
    """
    asked_for = file or _file_from_environment()
    path = asked_for or DEFAULT_FILE
    if asked_for is not None and not path.is_file():
        raise StartError(f"{path}: no such file")
    try:
        return settings_file.read_settings(
            ControlPlaneSettings, path, {} if listen is None else {"listen": listen}
        )
    except SettingsError as error:
        raise StartError(str(error)) from error


def _file_from_environment() -> Path | None:
    value = os.environ.get(CONFIG_VARIABLE)
    return Path(value) if value else None
