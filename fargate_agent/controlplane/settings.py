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

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from fargate_agent import settings_file
from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.role_settings import LocalRoleSettings, RolePattern
from fargate_agent.controlplane.state.database import check_database, rename_driver
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
from fargate_agent.setting_values import (
    AbsolutePath,
    ClusterName,
    ListenUrl,
    Region,
    Retention,
    Seconds,
    Url,
    check_url,
    matching,
    split_commas,
)
from fargate_agent.settings_file import FileSettings, Reading, SettingsError

ENV_PREFIX: Final = "FARGATE_CONTROL_PLANE_"
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
DEFAULT_FILE: Final = Path("/etc/fargate/control-plane.toml")


class ControlPlaneSettings(FileSettings):
    """Settings of `fargate-control-plane`; each is `FARGATE_CONTROL_PLANE_<NAME>` as well."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    listen: str = "http://127.0.0.1:51680"
    """Where the ECS API listens; also `--listen`. Port 0 takes a free one, and the URL in use is
    written to `<state_dir>/endpoint`."""
    state_dir: AbsolutePath = Path("/var/lib/fargate-control-plane")
    """Where the database and the keys are."""
    database: SecretStr | None = None
    """`postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME`. Several control planes may share it if
    they have the same keys. Without it: SQLite, `<state_dir>/state.db`."""
    keys_file: AbsolutePath | None = None
    """See below; made at the first start. Without it: `<state_dir>/keys.toml`."""
    region: Region = "us-east-1"
    """The region in ARNs, and the one for which requests have to be signed."""
    account: Annotated[str, matching(r"[0-9]{12}", "must have 12 digits")] = "000000000000"
    """The AWS account in ARNs."""
    cluster: ClusterName = "default"
    """The cluster that is there from the start, and that is meant when a request names none."""
    stopped_task_retention_s: Annotated[Retention, Field(ge=3600)] = 3600
    """For how many seconds a task can be described after it has stopped.
    Source: ECS API, ListTasks."""
    vpc_id: VpcId = DEFAULT_VPC
    """The id of the VPC."""
    vpc_cidr: IPv4Network = IPv4Network("10.0.0.0/16")
    """Range of the VPC, on AWS /16 to /28; larger ones are taken too. `subnet-default` is the first
    /20 of it."""
    vpc_ipv6_cidr: IPv6Network | None = None
    """IPv6 range of the VPC; `subnet-default` gets the first /64 of it. Without it the VPC has no
    IPv6."""
    subnets: Annotated[tuple[SubnetSettings, ...], Field(validate_default=True)] = ()
    """Subnets beside `subnet-default`, or in its place if one has that id. The members of each are
    below."""
    security_groups: tuple[SecurityGroupSettings, ...] = ()
    """Security groups beside `sg-default`, or in its place if one has that id. Their rules count
    until a call of the EC2 API changes them. The members of each are below."""
    history_retention_s: Annotated[Retention, Field(ge=3600)] = 7 * 24 * 3600
    """For how many seconds events are kept, which `fargate events` and `fargate why` show."""
    events_file: AbsolutePath | None = None
    """A file that gets every event as a line of JSON."""
    events_webhook: str | None = None
    """A URL that gets every event by POST."""
    capacity_mode: Literal["shared", "one-task-per-instance"] = "shared"
    """`shared`: an agent takes tasks beside each other. `one-task-per-instance`: it takes one task
    and is retired after it."""
    warm_pool: Annotated[int, Field(ge=0)] = 0
    """How many agents without a task should be there; the log says when there are fewer."""
    overcommit: bool = True
    """Whether the tasks of an agent may ask for more CPU and memory in sum than it has."""
    has_32_vcpus: bool = True
    """Whether a task may have 32 vCPUs, which AWS has in some regions only."""
    relaxed_clusters: Annotated[tuple[ClusterName, ...], NoDecode, split_commas] = ()
    """Clusters whose tasks may be what Fargate refuses and this machine can do."""
    aws: Literal["real", "local"] | None = None
    """Where credentials of tasks' roles come from. `real`: roles are assumed at STS with the
    machine's keys. `local`: this machine does without AWS, and the keys are made up. Without it:
    `real` where `aws_endpoint_url` or `aws_credentials_file` is set, else `local`. `local_roles`
    comes first in both."""
    aws_credentials_file: AbsolutePath | None = None
    """A shared credentials file with the machine's own AWS keys, in profile `default`, mode 0600,
    readable by the control plane. Execution roles and task roles are assumed with them. Without it,
    where `aws` is `real`: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of the environment."""
    aws_endpoint_url: Url | None = None
    """URL of the STS where roles are assumed. Without it: AWS's in `region`."""
    assume_roles: bool = True
    """Whether roles are assumed. `false`: tasks get the machine's own keys as they are, for local
    stacks without STS."""
    local_roles: dict[RolePattern, LocalRoleSettings] = {}
    """What stands for a role on this machine, by its name or ARN; `*` in it stands for anything.
    The members of each are below."""
    check_pass_role: bool = True
    """Whether a caller needs `iam:PassRole` for the roles of what it registers or runs, as in AWS.
    `false`: for keys whose policies don't have it yet."""
    agent_grace_s: Annotated[float, Field(ge=0, le=45)] = 30
    """How many seconds RunTask waits for an agent that has lost its connection, since it may be
    restarting. After that the agent is shown as INACTIVE until it is back."""
    lost_task_timeout_s: Seconds = 600
    """When an agent is away for so many seconds its machine is taken for lost: its tasks are
    STOPPED, services replace them, and an agent that does come back ends them."""
    max_connections_per_peer: Annotated[int, Field(ge=1)] = 512
    """Connections that one address may have; of IPv6, one /64. One more closes the one that has
    done nothing for longest."""
    heartbeat_s: Seconds = 10
    """After how many seconds an agent gets the next heartbeat, which it answers."""
    resend_s: Seconds = 10
    """After how many seconds a message that an agent did not acknowledge is sent again."""
    agent_read_timeout_s: Seconds = 30
    """A connection on which an agent is silent for so many seconds is closed: its machine may be
    dead."""
    metrics_listen: ListenUrl | None = None
    """Where Prometheus finds the control plane's metrics, at `/metrics`, such as
    `http://127.0.0.1:51682`. Nobody is asked for a key there. Without it: nowhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that the control plane logs."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        check_listen(value)
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

    @field_validator("subnets")
    @classmethod
    def _check_subnets(
        cls, value: tuple[SubnetSettings, ...], info: ValidationInfo
    ) -> tuple[SubnetSettings, ...]:
        if {"vpc_cidr", "vpc_ipv6_cidr"} <= info.data.keys():
            check_subnets(
                complete_subnets(value, info.data["vpc_cidr"], info.data["vpc_ipv6_cidr"])
            )
        return value

    @field_validator("agent_read_timeout_s")
    @classmethod
    def _check_silence(cls, value: float, info: ValidationInfo) -> float:
        heartbeat_s = info.data.get("heartbeat_s", 0)
        if value <= heartbeat_s:
            raise ValueError(
                f"is {value:g} and must be more than heartbeat_s, which is {heartbeat_s:g}: "
                f"set it to {3 * heartbeat_s:g}"
            )
        return value

    @property
    def is_local(self) -> bool:
        """Whether this machine does without AWS."""
        if self.aws is not None:
            return self.aws == "local"
        return self.aws_endpoint_url is None and self.aws_credentials_file is None

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
            return f"sqlite:///{self.state_dir / 'state.db'}"
        return rename_driver(self.database.get_secret_value())

    @property
    def keys_path(self) -> Path:
        """Where the keys are."""
        return self.keys_file or self.state_dir / "keys.toml"


def check_listen(text: str) -> None:
    """Return if it says a host and a port.

    Raises:
        ValueError: it doesn't.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        check_url(f"http://{host or ''}")
        rest = (parts.username, parts.query or None, parts.fragment or None)
        is_good = parts.scheme == "http" and parts.path in {"", "/"} and not any(rest)
    except ValueError:
        is_good, port = False, 0
    if not is_good:
        raise ValueError("must be http://HOST:PORT")
    if port is None:
        raise ValueError("the port is missing")


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
        StartError: a key is unknown, a value is wrong, or the file can't be read; names all faults.
    """
    try:
        return read_what_is_right(file, listen).complete()
    except SettingsError as error:
        raise StartError(str(error)) from error


def read_what_is_right(file: Path | None, listen: str | None) -> Reading[ControlPlaneSettings]:
    """Read the settings, as far as they are right.

    Raises:
        SettingsError: the file can't be read, isn't TOML, or isn't there and was asked for.
    """
    asked_for = file or _file_from_environment()
    if asked_for is not None and not asked_for.is_file():
        raise SettingsError(f"{asked_for}: no such file")
    options = {} if listen is None else {"listen": listen}
    return settings_file.read_settings(ControlPlaneSettings, asked_for or DEFAULT_FILE, options)


def _file_from_environment() -> Path | None:
    value = os.environ.get(CONFIG_VARIABLE)
    return Path(value) if value else None
