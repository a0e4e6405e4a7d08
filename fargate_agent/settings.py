"""Every knob of the agent, read once: environment first, then the settings file, then the default.

An unknown key is an error that names it, in the file as in the environment.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from fargate_agent.settings_file import FileSettings, read_document, read_settings

PullBehavior = Literal["default", "always", "once", "prefer-cached"]
"""Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_BEHAVIOR`."""

CLUSTER_NAME: Final = r"[A-Za-z0-9_-]{1,255}"
"""Source: ECS API, CreateCluster.clusterName."""

ENV_PREFIX: Final = "FARGATE_AGENT_"
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"


def _find_shim_loggers() -> Path:
    """Those of the checkout that this is part of, else those installed beside the environment."""
    checkout = Path(__file__).resolve().parent.parent / "shim-loggers"
    return checkout if checkout.is_dir() else Path(sys.prefix).parent / "shim-loggers"


class AgentSettings(FileSettings):
    """Settings of `fargate-agent`; each is `FARGATE_AGENT_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid")

    control_plane: str = "http://127.0.0.1:51680"
    """URL of the control plane; several that share a database are separated by commas."""
    access_key_id: str = ""
    secret_access_key: Annotated[str, Field(repr=False)] = ""
    """The agent's own key. Empty: that of `key_file`, else `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`."""
    key_file: Path | None = None
    """A TOML file with `access_key_id` and `secret_access_key`, for root's eyes only."""
    region: str = "us-east-1"
    clusters: Annotated[tuple[str, ...], NoDecode] = ()
    """The clusters whose tasks may run here. Empty: every cluster. Comma-separated in the
    environment."""
    cluster: str | None = None
    """Old name of `clusters`, for one cluster."""
    socket: Path = Path("/run/fargate-agent/agent.sock")
    """Where `fargate logs` and `fargate images` talk to the agent; mode 0600."""
    socket_group: str | None = None
    """Group that may use the socket as well, which then has mode 0660."""
    containerd_address: Path = Path("/run/containerd/containerd.sock")
    containerd_namespace: str = "fargate"
    snapshotter: str = "overlayfs"
    runc_root: Path | None = None
    """Where runC keeps its state; None is containerd's default."""
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None
    """Who makes the control groups of tasks. None: systemd where it runs and cgroup v2 is all there
    is, else the agent and runC themselves."""
    state_dir: Path = Path("/var/lib/fargate-agent")
    """What outlives a reboot: task records, volumes, the local copy of logs."""
    netns_dir: Path = Path("/run/netns")
    """Where network namespaces are mounted; `ip netns` looks into /run/netns."""
    shim_loggers_dir: Path = _find_shim_loggers()
    eni_ifname: Annotated[str, Field(pattern=r"^[a-z]+[0-9]+$", max_length=15)] = "eth1"
    """Name of the first interface inside a task."""
    image_pull_behavior: PullBehavior = "default"
    insecure_registries: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, with port if it isn't 80, that are spoken to without TLS. Comma-separated in the
    environment."""
    registry_auth_file: Path | None = None
    """A Docker `config.json` with credentials of registries."""
    aws_credentials_file: Path | None = None
    """A shared credentials file with the machine's own AWS keys, in profile `default`, mode 0600.
    With them the execution roles and task roles of tasks are assumed."""
    assume_roles: bool = True
    """Else tasks get the machine's own keys, for local stacks without STS."""
    aws_endpoint_url: str | None = None
    """URL of every AWS service that the agent calls. None: those of AWS in `region`."""
    container_create_timeout_s: Annotated[float, Field(gt=0)] = 240
    """Source: amazon-ecs-agent, agent/dockerclient/timeout.go, `CreateContainerTimeout`."""
    container_start_timeout_s: Annotated[float, Field(gt=0)] = 180
    """Source: amazon-ecs-agent README, `ECS_CONTAINER_START_TIMEOUT`."""
    log_driver_mode: Literal["blocking", "non-blocking"] = "non-blocking"
    """Whether a container waits when its log driver doesn't keep up, unless the task definition
    says it. Source: ECS API, account setting `defaultLogDriverMode`."""
    logger_user: Annotated[str, Field(pattern=r"^([^:\s]+|[1-9][0-9]*:[1-9][0-9]*)$")] | None = None
    """Whom the programs that send output run as: a name, or `uid:gid`. None: root."""
    log_host_paths: Annotated[tuple[Path, ...], NoDecode] = (Path("/dev/log"),)
    """Which files and unix sockets of this machine, or what is below them, a task definition may
    name to its log drivers. Comma-separated in the environment."""
    awslogs_endpoint: str | None = None
    """URL of CloudWatch Logs. None: that of AWS in the region of the log group."""
    log_copy: bool = True
    """Whether a copy of a container's output is kept here, whatever its log driver."""
    log_max_size: Annotated[
        str, Field(pattern=r"^[0-9]*[1-9][0-9]*(\.[0-9]+)? ?[kKmMgGtT]?[bB]?$", max_length=15)
    ] = "10m"
    log_max_file: Annotated[int, Field(ge=1, le=9999)] = 2
    """Size and number of the files of the local copy of a container's output."""
    log_retention_s: Annotated[int, Field(ge=0)] = 24 * 3600
    """How long the local copy outlives its task."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("clusters", "insecure_registries", "log_host_paths", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("clusters")
    @classmethod
    def _check_clusters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(CLUSTER_NAME, name):
                raise ValueError("must be names of clusters, such as default")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _take_over_cluster(self) -> "AgentSettings":
        """Let `cluster` pin the agent as it did before there was `clusters`."""
        if self.cluster is not None:
            if self.clusters:
                raise ValueError("cluster is the old name of clusters: remove it")
            self.clusters = (self.cluster,)
        return self


class AgentKey(BaseModel):
    """What `key_file` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_key_id: Annotated[str, Field(min_length=1)]
    secret_access_key: Annotated[str, Field(min_length=1, repr=False)]


def read_agent_settings(file: Path) -> AgentSettings:
    """Read the settings; a file that isn't there counts as empty.

    Raises:
        SettingsError: a key is unknown, or its value is wrong.
    """
    return read_settings(AgentSettings, file)


def read_key_file(file: Path) -> AgentKey:
    """Read the agent's key from a file of its own.

    Raises:
        SettingsError: it isn't there, can't be read, or lacks something.
    """
    return read_document(AgentKey, file)
