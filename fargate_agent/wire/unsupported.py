"""Members of a task definition that no agent can do yet, or that Fargate doesn't have.

They are sent as they stand in the definition, so that the agent refuses a task that asks for one
instead of running it without. A member leaves this list when the agent does what it asks for.

Source: ECS API, RegisterTaskDefinition.
"""

from typing import Any

from pydantic import Field

from fargate_agent.wire.message import Message


def asks_for_something(value: Any) -> bool:  # noqa: ANN401 - any member of a request
    """Whether a member has to be done: what is empty, 0, false or switched off hasn't."""
    switches = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return bool(value) and False not in (switches.get("enabled"), switches.get("enable"))


class UnsupportedByTasks(Message):
    """Members of the definition itself."""

    ipc_mode: Any = None
    placement_constraints: Any = None
    proxy_configuration: Any = None
    trusted_execution_configuration: Any = None


class UnsupportedByContainers(Message):
    """Members of a container."""

    credential_specs: Any = None
    disable_networking: Any = None
    dns_search_domains: Any = None
    dns_servers: Any = None
    docker_security_options: Any = None
    extra_hosts: Any = None
    hostname: Any = None
    links: Any = None
    privileged: Any = None
    resource_requirements: Any = None


class UnsupportedByLinux(Message):
    """Members of `linuxParameters`."""

    devices: Any = None
    max_swap: Any = None
    swappiness: Any = None


class UnsupportedByVolumes(Message):
    """Members of a volume."""

    fsx_windows_file_server_volume_configuration: Any = None
    s3files_volume_configuration: Any = Field(None, alias="s3filesVolumeConfiguration")


class UnsupportedByDockerVolumes(Message):
    """Members of `dockerVolumeConfiguration`."""

    driver_opts: Any = None
