"""The plan of a task as data: frozen, and with every name in it decided."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Final

from fargate_agent.plan.host_paths import HostPaths
from fargate_agent.plan.volume_plans import MountPlan, VolumePlan, VolumesFromPlan
from fargate_agent.role_keys import RoleKeys
from fargate_agent.settings_efs import EfsFileSystem
from fargate_agent.wire.eni_kinds import EniKind

TMDS_ADDRESS: Final = IPv4Address("169.254.170.2")
"""Where a task finds its metadata. Source: ECS developer guide, task metadata endpoint v4."""
VPC_RESOLVER: Final = IPv4Address("169.254.169.253")
"""Where every task finds the resolver of its VPC.

Source: Amazon VPC User Guide, "DNS attributes for your VPC".
"""
TIME_ADDRESS: Final = IPv4Address("169.254.169.123")
"""Source: Amazon EC2 User Guide, "Set the time reference on your EC2 instance"."""

METADATA_IFNAME: Final = "eth0"
"""The interface of a task that leads there. Source: amazon-ecs-agent, netlib, managed platform."""


class Condition(StrEnum):
    """What a dependency must have reached."""

    CREATE = "CREATE"
    """Implied by `volumesFrom`. Source: amazon-ecs-agent, agent/engine/dependencygraph."""
    START = "START"
    COMPLETE = "COMPLETE"
    SUCCESS = "SUCCESS"
    HEALTHY = "HEALTHY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a plan has to know of the machine it is for; the same for every task of an agent."""

    netns_dir: Path
    """Network namespaces are bind-mounted here."""
    tasks_dir: Path
    """Each task has a directory here, for its files and volumes."""
    logs_dir: Path
    """Each task has a directory here, for the local copy of its output."""
    eni_ifname: str = "eth1"
    """Name of the first interface in a task. Source: amazon-ecs-agent, netlib, managed platform."""
    region: str = "us-east-1"
    default_log_driver: str = "json-file"
    """Of a container that names none."""
    is_local: bool = False
    """Whether this machine does without AWS: secrets, environment files and log groups stand here
    (`aws = "local"`)."""
    logs_are_local: bool = False
    """Whether the copy of the output here stands for CloudWatch Logs."""
    efs: Mapping[str, EfsFileSystem] = field(default_factory=dict)
    """What stands for file systems of EFS, by their ids."""
    host_paths: HostPaths = HostPaths()
    secrets_key: str = field(default_factory=secrets.token_hex, repr=False)
    """What ids that containers must not guess are made from. An agent that starts anew has another
    one: what they stand for is kept in memory only."""

    @property
    def volumes_dir(self) -> Path:
        """Return where the named volumes are that outlive tasks."""
        return self.tasks_dir.parent / "volumes"

    @property
    def efs_dir(self) -> Path:
        """Where file systems of EFS have directories that stand for them."""
        return self.tasks_dir.parent / "efs"

    def netns(self, task_id: str) -> Path:
        """Return where the network namespace of a task is mounted."""
        return self.netns_dir / f"fargate-{task_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What a task definition names, and what stands for it on this machine."""

    kind: str
    """`secret`, `environment-file`, `logs`, `role`, `image`, `efs` or `ebs-volume`."""
    what: str
    """As the task definition names it."""
    by: str
    """In words, e.g. `the copy kept on this machine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    """An IAM role that is used for a task."""

    arn: str
    credentials_id: str = field(repr=False)
    """Names its credentials: those of the role of the task are on the metadata endpoint, at
    `/v2/credentials/<credentials id>`. Containers are told it for that role only."""
    given: RoleKeys | None = None
    """Credentials that came with the message. Newer ones come by themselves."""
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    """As in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EniPlan:
    """One interface inside the task's network namespace."""

    kind: EniKind
    id: str
    """`eni-…`."""
    attachment_arn: str
    ifname: str
    mac: str
    address: IPv4Interface
    gateway: IPv4Address
    ipv6_address: IPv6Interface | None = None
    ipv6_gateway: IPv6Address | None = None
    mtu: int | None = None
    """Bytes; None leaves the kernel's choice."""
    parent: str | None = None
    """NIC of the host that a macvlan or a VLAN hangs on: its name, or of a VLAN's its MAC."""
    vlan_id: int | None = None
    """Which VLAN of the parent a branch ENI is."""
    cni_network: str | None = None
    """The network of the host whose CNI plugins make the ENI."""
    security_groups: tuple[str, ...] | None = None
    """Ids of the groups whose rules hold for it; None: everything may go out, nothing may come in.
    """
    vpc_cidr_blocks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Ranges of its VPC. The subnet's own is always one."""
    nat: bool = True
    """Whether it reaches other networks than its VPC, and is reached by them."""
    primary: bool = True
    """The first interface: it carries the default route."""
    private_dns_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsPlan:
    """How names are resolved inside the task, and by the agent when it pulls for the task."""

    servers: tuple[str, ...]
    """Those that its subnet names, else the VPC's resolver."""
    search: tuple[str, ...]
    hostname: str
    resolver: IPv4Address = VPC_RESOLVER
    """A further address at which this task reaches the VPC's resolver: the base of the VPC's range
    plus two. Where a LAN may have another machine there, it is the link-local one again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """Where a container's output goes."""

    driver: str
    options: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Further options, by name: the ARN of a secret or parameter, or a parameter's name."""
    plain_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options that are secrets by their nature, with the values that the message had."""
    secrets_id: str = field(default="", repr=False)
    """Names the secrets where loggers ask for them; containers can't guess it."""
    is_local: bool = False
    """Whether the copy of the output here is all that is kept, in the place of the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirelensPlan:
    """The container that takes the output of others, and what it is given for that."""

    container: str
    config: Path
    """Its configuration, a file of the host."""
    config_text: str
    socket: Path
    """Where it listens; the directory is its `/var/run`."""
    socket_owner: tuple[int, int]
    """Uid and gid of that directory; -1 leaves what is."""
    mounts: tuple[MountPlan, ...]
    secrets: Mapping[str, str]
    """As those of a container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsPlan:
    """A tmpfs inside a container; its pages count towards the container's memory."""

    destination: str
    size_mib: int
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """A small file that a container has in a tmpfs: a text, or the value of a secret."""

    destination: str
    reference: str | None = None
    """What `valueFrom` says; None: it is `text`."""
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UlimitPlan:
    """A resource limit; -1 is unlimited."""

    name: str
    """As in a task definition, e.g. `nofile`."""
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyPlan:
    """What another container of the task must have reached first."""

    container: str
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckPlan:
    """A command that says by its exit code whether a container works."""

    argv: tuple[str, ...]
    interval_s: int
    timeout_s: int
    retries: int
    """Failures in a row that make a container UNHEALTHY."""
    start_period_s: int
    """After a start, in which failures don't count; a success ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPlan:
    """When a container that ended by itself is started again."""

    ignored_exit_codes: frozenset[int]
    """Codes after which it isn't."""
    attempt_period_s: int
    """How long it has to have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One container, with everything that doesn't depend on its image."""

    name: str
    id: str
    """Id in containerd, and the `runtimeId` of ECS: `<task id>-<10 digits>`."""
    arn: str
    metadata_id: str
    """What stands in the metadata URI of this container; can't be computed by others."""
    image: str
    essential: bool
    entry_point: tuple[str, ...] | None
    command: tuple[str, ...] | None
    environment: Mapping[str, str]
    user: str | None
    working_directory: str | None
    cgroup: str
    """`/ecs/<task id>/<container id>`, as cgroup drivers are asked for it."""
    cpu_shares: int
    memory_mib: int | None
    memory_reservation_mib: int | None
    mounts: tuple[MountPlan, ...]
    tmpfs: tuple[TmpfsPlan, ...]
    ulimits: tuple[UlimitPlan, ...]
    add_capabilities: tuple[str, ...]
    drop_capabilities: tuple[str, ...]
    readonly_rootfs: bool
    terminal: bool
    labels: Mapping[str, str]
    log: LogPlan
    log_path: Path
    """Local copy of the output, whatever the driver."""
    log_fault_path: Path
    """Where a logger that can't work says why."""
    execs_dir: Path
    """Holds the FIFOs of the programs that are run inside; below the directory of the task."""
    depends_on: tuple[DependencyPlan, ...]
    start_timeout_s: int | None
    stop_timeout_s: int
    ports: tuple[tuple[int, str], ...] = ()
    """Port and protocol, for the metadata only."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Further variables, by name: the ARN of a secret or parameter, or a parameter's name."""
    secret_objects: tuple[tuple[str, str], ...] = ()
    """Prefix and reference of secrets that are JSON objects: each member is a variable."""
    environment_files: tuple[str, ...] = ()
    """ARNs of objects in S3; where two have the same variable the first one counts."""
    injected: frozenset[str] = frozenset()
    """Names of the variables in `environment` that the agent adds: nothing replaces them."""
    gives_way: tuple[frozenset[str], ...] = ()
    """Names of variables in `environment`, those that belong together in one set: where the image,
    an environment file or a secret sets one of a set, all of the set is left out."""
    repository_credentials: str | None = None
    """ARN or name of the secret with user and password of the image's registry."""
    files: tuple[FilePlan, ...] = ()
    file_contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By destination. Only the creation of the container sees them, as it alone sees `environment`
    with the values of secrets."""
    stops_after: tuple[str, ...] = ()
    """Names of the containers that depend on this one: it is stopped when they have ended."""
    health: HealthCheckPlan | None = None
    restart: RestartPlan | None = None
    stdin: Path | None = None
    """A FIFO that stdin stays open on; None: it is at its end (`interactive`)."""
    init: bool = False
    """Whether an init is the first process, which reaps and forwards signals."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    volumes_from: tuple[VolumesFromPlan, ...] = ()
    """Of whom it has mounts; those that the definition says are in `mounts` already."""
    shm_size_mib: int | None = None
    """Size of /dev/shm; None is Docker's."""

    @property
    def refers(self) -> bool:
        """Whether it is given something by reference, which has to be fetched."""
        return bool(
            self.secrets
            or self.secret_objects
            or self.environment_files
            or any(file.reference is not None for file in self.files)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One task; see the module's docstring."""

    arn: str
    id: str
    cluster_arn: str
    cluster: str
    """Short name."""
    family: str
    revision: str
    cpu_units: int | None
    memory_mib: int | None
    architecture: str
    """As images name it: `amd64` or `arm64`."""
    launch_type: str
    group: str | None
    service_name: str | None
    zone: str | None
    vpc_id: str | None
    ephemeral_storage_gib: int
    netns: Path
    directory: Path
    """Files and volumes of the task; gone when it has stopped."""
    storage: Path
    """Where its ephemeral volume is mounted: all that its containers write lies in it."""
    logs_dir: Path
    cgroup: str
    """`/ecs/<task id>`, as cgroup drivers are asked for it; systemd's makes a slice of it."""
    lease: str
    """Keeps the images and snapshots of the task from containerd's garbage collector."""
    enis: tuple[EniPlan, ...]
    dns: DnsPlan
    volumes: tuple[VolumePlan, ...]
    containers: tuple[ContainerPlan, ...] = field(default=())
    """In an order in which each comes after those it depends on."""
    execution_role: RolePlan | None = None
    """What the agent and the loggers act as, for the task."""
    task_role: RolePlan | None = None
    """What the containers act as."""
    firelens: FirelensPlan | None = None
    """The router of the task."""
    shares_pid_namespace: bool = False
    """Whether all containers share one PID namespace (`pidMode: task`)."""
    may_inject_faults: bool = False
    """Whether its containers may make its network worse (`enableFaultInjection`)."""
    replacements: tuple[Replacement, ...] = ()
    """What stands for something else on this machine, as far as it is known before the start."""
    traceparent: str | None = None
    """The trace that its start is a part of, as W3C's header says it."""

    @property
    def roles(self) -> tuple[RolePlan, ...]:
        """The roles that the task has."""
        return tuple(role for role in (self.execution_role, self.task_role) if role is not None)
