"""Every knob of the agent, read once: environment first, then the settings file, then the default.

An unknown key in the file is an error that names it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PullBehavior = Literal["default", "always", "once", "prefer-cached"]
"""Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_BEHAVIOR`."""

_CHECKOUT = Path(__file__).resolve().parent.parent


class AgentSettings(BaseSettings):
    """Settings of `fargate-agent`; each is `FARGATE_AGENT_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="FARGATE_AGENT_", extra="forbid")

    control_plane: str = "http://127.0.0.1:51680"
    """URL of the control plane."""
    access_key_id: str = ""
    secret_access_key: Annotated[str, Field(repr=False)] = ""
    """The agent's own key. Empty: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."""
    region: str = "us-east-1"
    cluster: str = "default"
    socket: Path = Path("/run/fargate-agent/agent.sock")
    """Where `fargate logs` and `fargate images` talk to the agent; mode 0600."""
    containerd_address: Path = Path("/run/containerd/containerd.sock")
    containerd_namespace: str = "fargate"
    snapshotter: str = "overlayfs"
    runc_root: Path | None = None
    """Where runC keeps its state; None is containerd's default."""
    state_dir: Path = Path("/var/lib/fargate-agent")
    """What outlives a reboot: task records, volumes, the local copy of logs."""
    netns_dir: Path = Path("/run/netns")
    """Where network namespaces are mounted; `ip netns` looks into /run/netns."""
    shim_loggers_dir: Path = _CHECKOUT / "shim-loggers"
    eni_ifname: Annotated[str, Field(pattern=r"^[a-z]+[0-9]+$", max_length=15)] = "eth1"
    """Name of the first interface inside a task."""
    image_pull_behavior: PullBehavior = "default"
    insecure_registries: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, with port if it isn't 80, that are spoken to without TLS. Comma-separated in the
    environment."""
    registry_auth_file: Path | None = None
    """A Docker `config.json` with credentials of registries."""
    container_create_timeout_s: Annotated[float, Field(gt=0)] = 240
    """Source: amazon-ecs-agent, agent/dockerclient/timeout.go, `CreateContainerTimeout`."""
    container_start_timeout_s: Annotated[float, Field(gt=0)] = 180
    """Source: amazon-ecs-agent README, `ECS_CONTAINER_START_TIMEOUT`."""
    log_max_size: str = "10m"
    log_max_file: Annotated[int, Field(ge=1)] = 2
    """Size and number of the files of the local copy of a container's output."""
    log_retention_s: Annotated[int, Field(ge=0)] = 24 * 3600
    """How long the local copy outlives its task."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("insecure_registries", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment wins over the file that `read_agent_settings` was given."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_agent_settings(file: Path) -> AgentSettings:
    """Read the settings; a file that isn't there counts as empty.

    Raises:
        pydantic.ValidationError: a key is unknown, or its value is wrong.
        tomllib.TOMLDecodeError: the file isn't TOML.
    """

    class Settings(AgentSettings):
        model_config = SettingsConfigDict(toml_file=file)

    return Settings()
