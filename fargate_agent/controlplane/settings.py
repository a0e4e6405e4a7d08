"""Every knob of the control plane, read once: environment, then the settings file, then default.

An unknown key is an error that names it, in the file as in the environment.
"""

import os
import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from fargate_agent import settings_file
from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.state.database import check_database
from fargate_agent.controlplane.vpc_settings import (
    DEFAULT_VPC,
    SecurityGroupSettings,
    SubnetSettings,
    VpcId,
    check_security_groups,
    check_subnets,
    check_vpc_cidr,
    complete_security_groups,
    complete_subnets,
)
from fargate_agent.settings_file import FileSettings, SettingsError

ENV_PREFIX: Final = "FARGATE_CONTROL_PLANE_"
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
DEFAULT_FILE: Final = Path("/etc/fargate/control-plane.toml")


class ControlPlaneSettings(FileSettings):
    """Settings of `fargate-control-plane`; each is `FARGATE_CONTROL_PLANE_<NAME>` as well."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    listen: str = "http://127.0.0.1:51680"
    """Port 0 takes a free one; the URL in use is written to `<state_dir>/endpoint`."""
    state_dir: Path = Path("/var/lib/fargate-control-plane")
    database: SecretStr | None = None
    """As SQLAlchemy writes it: `postgresql+asyncpg://…`; None: SQLite, `<state_dir>/state.db`."""
    keys_file: Path | None = None
    """None: `<state_dir>/keys.toml`."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")] = "us-east-1"
    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")] = "000000000000"
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")] = "default"
    """Is there from the start, and meant when a request names none."""
    stopped_task_retention_s: Annotated[int, Field(ge=3600)] = 3600
    """How long a task can be described after it has stopped. Source: ECS API, ListTasks."""
    vpc_id: VpcId = DEFAULT_VPC
    vpc_cidr: IPv4Network = IPv4Network("10.0.0.0/16")
    """Range of the VPC; `subnet-default` is the first /20 of it."""
    vpc_ipv6_cidr: IPv6Network | None = None
    """Range of the VPC; `subnet-default` is the first /64 of it. None: it has no IPv6."""
    subnets: tuple[SubnetSettings, ...] = ()
    """Beside `subnet-default`, or in its place if one has that id."""
    security_groups: tuple[SecurityGroupSettings, ...] = ()
    """Beside `sg-default`, or in its place if one has that id."""
    history_retention_s: Annotated[int, Field(ge=3600)] = 7 * 24 * 3600
    """How long events are kept."""
    events_file: Path | None = None
    """Gets every event as a line of JSON."""
    events_webhook: str | None = None
    """Gets every event by POST."""
    capacity_mode: Literal["shared", "one-task-per-instance"] = "shared"
    """Whether an instance takes tasks beside each other, or one only and is retired after it."""
    warm_pool: Annotated[int, Field(ge=0)] = 0
    """How many instances without a task should be there."""
    overcommit: bool = True
    """Whether the tasks of an instance may ask for more CPU and memory in sum than it has."""
    has_32_vcpus: bool = True
    """Whether a task may have 32 vCPUs, as in some regions of AWS."""
    relaxed_clusters: tuple[str, ...] = ()
    """Clusters whose tasks may be what Fargate refuses and this machine can do."""
    agent_grace_s: Annotated[float, Field(ge=0, le=45)] = 30
    """RunTask waits for an agent that was lost no longer ago than this, as if it restarts. One that
    is away for longer is shown as inactive until it is back."""
    lost_task_timeout_s: Annotated[float, Field(gt=0)] = 600
    """When an agent is away for so long its machine is taken for lost: its tasks are stopped."""
    max_connections_per_peer: Annotated[int, Field(ge=1)] = 512
    """Connections of one address. One more closes the one that has done nothing for longest."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 10
    """How often an agent is spoken to, which it answers."""
    resend_s: Annotated[float, Field(gt=0)] = 10
    """When a message to an agent that was not acknowledged is sent again."""
    agent_read_timeout_s: Annotated[float, Field(gt=0)] = 30
    """A connection on which an agent is silent for so long is closed: its machine may be dead."""
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

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database(value.get_secret_value())
        return value

    @field_validator("events_webhook")
    @classmethod
    def _check_events_webhook(cls, value: str | None) -> str | None:
        if value is not None:
            check_webhook(value)
        return value

    @field_validator("vpc_cidr", "vpc_ipv6_cidr")
    @classmethod
    def _check_vpc_cidr(
        cls, value: IPv4Network | IPv6Network | None
    ) -> IPv4Network | IPv6Network | None:
        if value is not None:
            check_vpc_cidr(value)
        return value

    @field_validator("security_groups")
    @classmethod
    def _check_security_groups(
        cls, value: tuple[SecurityGroupSettings, ...]
    ) -> tuple[SecurityGroupSettings, ...]:
        check_security_groups(complete_security_groups(value))
        return value

    @model_validator(mode="after")
    def _check_subnets(self) -> "ControlPlaneSettings":
        check_subnets(self.all_subnets)
        return self

    @property
    def all_subnets(self) -> tuple[SubnetSettings, ...]:
        """`subnet-default` and those that were set."""
        return complete_subnets(self.subnets, self.vpc_cidr, self.vpc_ipv6_cidr)

    @property
    def all_security_groups(self) -> tuple[SecurityGroupSettings, ...]:
        """`sg-default` and those that were set."""
        return complete_security_groups(self.security_groups)

    @property
    def database_url(self) -> str:
        """Where the state is kept; may hold a password."""
        if self.database is None:
            return f"sqlite+aiosqlite:///{self.state_dir / 'state.db'}"
        return self.database.get_secret_value()

    @property
    def keys_path(self) -> Path:
        """Where the keys are."""
        return self.keys_file or self.state_dir / "keys.toml"


def check_webhook(text: str) -> None:
    """Return if events can be posted there.

    Raises:
        ValueError: they can't be; the text doesn't repeat the URL, because it may hold a secret.
    """
    from yarl import URL  # what posts reads it so

    with suppress(ValueError):
        url = URL(text)
        if url.scheme in {"http", "https"} and url.host and not re.search(r"\s", text):
            return
    raise ValueError("must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")


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
