"""Every knob of the agent, read once: environment first, then the settings file, then the default.

An unknown key is an error that names it, in the file as in the environment.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from fargate_agent.setting_values import (
    CLUSTER_NAME,
    AbsolutePath,
    ListenUrl,
    Mirrors,
    Prefix,
    ProxyUrl,
    Region,
    Registry,
    Retention,
    Seconds,
    SocketPath,
    Url,
    Urls,
    WithoutProxy,
    check_host_volume,
    matching,
    split_commas,
)
from fargate_agent.settings_efs import EfsFileSystem, FileSystemId
from fargate_agent.settings_file import FileSettings, Reading, read_document, read_settings
from fargate_agent.settings_images import ImagePrefix, ImageSignatureSettings
from fargate_agent.settings_network import CNI_BIN_DIRS, FlowLogSettings, HostPort
from fargate_agent.settings_registries import RegistrySettings

PullBehavior = Literal["default", "always", "once", "prefer-cached"]
"""Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_BEHAVIOR`."""

KeyPart = Annotated[str, matching(r"[!-~]*", "must be printable ASCII without spaces")]
"""An access key id or a secret; empty where another place has it."""

BucketName = Annotated[
    str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "must be the name of a bucket of S3")
]
"""Source: Amazon S3 user guide, general purpose bucket naming rules."""

SnapshotId = Annotated[
    str, matching(r"snap-([0-9a-f]{8}|[0-9a-f]{17})", "must be the id of a snapshot")
]

HostVolumePath = Annotated[
    AbsolutePath,
    AfterValidator(check_host_volume),
]
_LOGGER_USER: Final = r"[^:\s]+|[1-9][0-9]{0,8}:[1-9][0-9]{0,8}"
_LOGGER_USER_RULE: Final = "must be the name of a user, or uid:gid, each above 0"

ENV_PREFIX: Final = "FARGATE_AGENT_"
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"


def _find_shim_loggers() -> Path:
    """Those of the checkout that this is part of, else those installed beside the environment."""
    checkout = Path(__file__).resolve().parent.parent / "shim-loggers"
    return checkout if checkout.is_dir() else Path(sys.prefix).parent / "shim-loggers"


class AgentSettings(FileSettings):
    """Settings of `fargate-agent`; each is `FARGATE_AGENT_<NAME>` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", use_attribute_docstrings=True
    )

    control_plane: Urls = "http://127.0.0.1:51680"
    """URL of the control plane. Several that share a database are separated by commas: the next one
    is asked when one can't be reached."""
    access_key_id: KeyPart = ""
    """The agent's own key. Without it and `secret_access_key` that of `key_file` is taken, and
    without that `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."""
    secret_access_key: Annotated[KeyPart, Field(repr=False)] = ""
    """The secret of `access_key_id`."""
    key_file: AbsolutePath | None = None
    """A TOML file with `access_key_id` and `secret_access_key`. Only root should be able to read
    it."""
    region: Region = "us-east-1"
    """The region that the agent and its tasks name; it is also part of every signature."""
    clusters: Annotated[tuple[str, ...], NoDecode, split_commas] = ()
    """The clusters whose tasks may run here; empty: every cluster. The agent registers in the first
    of them; one that serves every cluster, in the control plane's `cluster`. The key needs
    permission for each of them."""
    cluster: str | None = None
    """Old name of `clusters`, for one cluster, to which it pins the agent."""
    socket: SocketPath = Path("/run/fargate-agent/agent.sock")
    """Where `fargate logs`, `images`, `login`, `logout`, `secrets` and `doctor` talk to the agent;
    mode 0600."""
    socket_group: str | None = None
    """A group that may use the socket as well, which then has mode 0660. Its members may read the
    output of every task, end every task, load and remove images, and set the values of secrets and
    logins of registries."""
    containerd_address: SocketPath = Path("/run/containerd/containerd.sock")
    """The socket of containerd."""
    containerd_namespace: Annotated[
        str,
        Field(max_length=76),
        matching(
            r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*",
            "must be letters and digits with single dots, hyphens or underscores between them",
        ),
    ] = "fargate"
    """The namespace of containerd that holds the agent's images and containers. Two agents on one
    containerd need two. Source: containerd, pkg/identifiers/validate.go."""
    snapshotter: Annotated[
        str, matching(r"[a-z0-9]+([._-][a-z0-9]+)*", "must be the name of a snapshotter")
    ] = "overlayfs"
    """The snapshotter of containerd that holds the file systems of containers."""
    oci_runtime: Annotated[
        str,
        matching(
            r"[A-Za-z0-9][A-Za-z0-9._-]*|/[!-~]+",
            "must be the name of a program, such as crun, or its absolute path",
        ),
    ] = "runc"
    """The program that makes containers, as `runc` does; those that run keep theirs. `crun` takes
    half the time that runC takes for one, and refuses hosts that have cgroup v1 beside v2."""
    runc_root: AbsolutePath | None = None
    """Where `oci_runtime` keeps its state. Without it containerd says where."""
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None
    """Who makes the control groups of new tasks; tasks that run keep theirs. Without it: `systemd`
    on a host that systemd runs, with cgroup v2 alone and a system bus; else `cgroupfs`."""
    state_dir: AbsolutePath = Path("/var/lib/fargate-agent")
    """What outlives a reboot: records of tasks, named volumes, EBS volumes that were kept,
    directories that stand for EFS, logins of registries, secrets, local copies of logs. The volumes
    of tasks that run are in it too."""
    ephemeral_storage: Literal["sparse", "counted", "reserved"] = "sparse"
    """How the agent decides whether the disk has room for the volumes of a new task. `sparse`: by
    the space that is free now. `counted`: by what is free if every task fills its volumes.
    `reserved`: as `counted`, and the space is taken from the disk when the task starts. See
    `docs/storage.md`."""
    ephemeral_storage_margin_mib: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    """Space that is kept free on the disk of `state_dir`, in MiB: a task that would need it isn't
    started. Below half of it, the task whose volume grew most is ended. Without it: 1024, or a
    twentieth of the disk if that is less."""
    require_ephemeral_storage_limit: bool = False
    """Whether tasks are refused where this machine can't keep them to their ephemeral storage. Else
    they run without a limit, and `fargate doctor` says so."""
    netns_dir: AbsolutePath = Path("/run/netns")
    """Where network namespaces are mounted; `ip netns` looks into `/run/netns`."""
    shim_loggers_dir: AbsolutePath = _find_shim_loggers()
    """Where the programs are that containerd starts as loggers. Without it: beside the agent's
    own Python environment, or in the checkout that the agent runs from."""
    eni_ifname: Annotated[
        str,
        matching(
            r"(?!eth0\Z)(?=.{2,15}\Z)[a-z]+[0-9]+",
            "must be letters and a number, such as eth1; eth0 leads to the metadata endpoint",
        ),
    ] = "eth1"
    """Name of the first interface in a task. `eth0` leads to the metadata endpoint and can't be
    chosen."""
    host_ports: Annotated[tuple[HostPort, ...], NoDecode, split_commas] = ()
    """Ports of this machine that tasks may reach: `PORT`, `FIRST-LAST`, with `/udp` for UDP."""
    host_reaches_tasks: bool = True
    """Whether programs of this machine reach tasks, whatever the tasks' security groups say."""
    max_tracked_flows: Annotated[int, Field(ge=16, le=1_000_000)] = 16_384
    """Most flows of one ENI that are tracked at a time; more are dropped until some have ended."""
    flow_logs: FlowLogSettings | None = None
    """A table that says where flow logs go. Without it there are none. See below."""
    cni_conf_dir: AbsolutePath = Path("/etc/cni/net.d")
    """Where the networks are configured that subnets of kind `cni` name."""
    cni_bin_dirs: Annotated[tuple[AbsolutePath, ...], NoDecode, split_commas] = CNI_BIN_DIRS
    """Where CNI plugins are; of several with one name the first is taken."""
    image_pull_behavior: PullBehavior = "default"
    """`default`: from the registry, and the copy here if that fails. `always`: from the registry or
    not at all. `once`: not again what this agent has pulled. `prefer-cached`: any copy here."""
    image_cleanup: bool = True
    """Whether images that no task has used for a while are removed: those that were pulled, never
    those of `fargate images load`. With `prefer-cached` they stay as well.
    Source: amazon-ecs-agent README, `ECS_DISABLE_IMAGE_CLEANUP`."""
    image_cleanup_interval_s: Seconds = 1800
    """How often that is done. Source: amazon-ecs-agent README, `ECS_IMAGE_CLEANUP_INTERVAL`."""
    image_minimum_cleanup_age_s: Retention = 3600
    """How long an image stays after its last use.
    Source: amazon-ecs-agent README, `ECS_IMAGE_MINIMUM_CLEANUP_AGE`."""
    images_deleted_per_cleanup: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Most images that are removed at a time, those used longest ago first.
    Source: amazon-ecs-agent README, `ECS_NUM_IMAGES_DELETE_PER_CYCLE`."""
    image_cleanup_exclude: Annotated[tuple[str, ...], NoDecode, split_commas] = ()
    """Names of images that are never removed by themselves.
    Source: amazon-ecs-agent README, `ECS_EXCLUDE_UNTRACKED_IMAGE`."""
    image_disk_high_percent: Annotated[int, Field(ge=1, le=100)] = 85
    """How full the disk of containerd may get before unused images are removed whatever their age,
    those used longest ago first; 100: that isn't done."""
    image_disk_low_percent: Annotated[int, Field(ge=0, le=100)] = 80
    """How far such a removal goes on."""
    image_signatures: dict[ImagePrefix, ImageSignatureSettings] = {}
    """A table of prefixes of image names, `""` for all, with what is asked of these images; the
    longest prefix counts. Images of no prefix need nothing. JSON in the environment. The members of
    each are below; see [images.md](images.md)."""
    insecure_registries: Annotated[tuple[Registry, ...], NoDecode, split_commas] = ()
    """Hosts, with the port if it isn't 80, that are spoken to without TLS."""
    registry_auth_file: AbsolutePath | None = None
    """A Docker `config.json` with credentials of registries. The programs that it names
    (`credHelpers`, `credsStore`) are looked for in the agent's PATH and run as the file's owner."""
    registry_proxy: Annotated[ProxyUrl, Field(repr=False)] = ""
    """URL of the HTTP proxy that registries are asked through, `http://[USER:PASSWORD@]HOST:PORT`.
    It is reached through the network of the task whose image is pulled, and resolves the names of
    registries. The variables `HTTPS_PROXY` and `HTTP_PROXY` are not read."""
    registry_no_proxy: Annotated[tuple[WithoutProxy, ...], NoDecode, split_commas] = ()
    """Hosts that are asked without `registry_proxy`: `HOST` and all below it, `.SUFFIX`,
    `HOST:PORT`, an address, or a range such as `10.0.0.0/8`; `*`: all."""
    registries: dict[Registry, RegistrySettings] = {}
    """A table for each registry that has a certificate authority or a proxy of its own, by its name
    as image names begin with it, e.g. `[registries."registry.example:5000"]`; Docker Hub is
    `docker.io`. See below. JSON in the environment."""
    registry_mirrors: dict[Prefix, Mirrors] = {}
    """Mirrors, by prefix of image name: another prefix, or a list of prefixes that are tried in
    order. The longest prefix counts. The registry that the image names comes
    last, unless the list names its prefix in another place or has `no-original`. A mirror is shown
    its own credentials only. JSON in the environment."""
    aws_credentials_file: AbsolutePath | None = None
    """A shared credentials file with the machine's own AWS keys, in profile `default`, mode 0600.
    `fargate up` hands it on to the control plane, which assumes roles; the agent has no use for it
    but to know that this machine has AWS."""
    assume_roles: bool = True
    """Whether roles are assumed. `fargate up` hands it on to the control plane, which does that; it
    changes nothing here."""
    aws: Literal["real", "local"] | None = None
    """`local`: this machine does without AWS. Secrets are those of `fargate secrets`, the driver
    `awslogs` keeps its local copy alone, environment files come from `local_buckets`. Without it:
    `real` where `aws_endpoint_url` or `aws_credentials_file` is set, else `local`."""
    local_buckets: dict[BucketName, AbsolutePath] = {}
    """A table of directories by the names of the buckets that they stand for, where this machine
    does without AWS: the key of an environment file is its path below. Symbolic links below a
    directory are not followed. JSON in the environment."""
    ebs_snapshots: dict[SnapshotId, AbsolutePath] = {}
    """Files by the ids of the snapshots that they stand for: an EBS volume that is made from a
    snapshot begins as a copy of the file, which has to hold the file system that the volume is to
    have. JSON in the environment. See [storage](storage.md#ebs-volumes)."""
    efs: dict[FileSystemId, EfsFileSystem] = {}
    """A table of what stands for file systems of EFS, by their ids, each with `server` or
    `directory`; see [storage](storage.md#efs). JSON in the environment."""
    aws_endpoint_url: Url | None = None
    """URL of every AWS service that the agent calls. Without it: those of AWS in `region`."""
    task_metadata_rps_limit: Annotated[
        str,
        matching(
            r"0|[1-9][0-9]{0,5},[1-9][0-9]{0,5}",
            "must be requests per second and burst, such as 40,60, or 0 for no limit",
        ),
    ] = "40,60"
    """How often a task may ask its metadata endpoint for the same path: requests per second, and
    how many at once after a pause. `0`: as often as it can.
    Source: amazon-ecs-agent README, `ECS_TASK_METADATA_RPS_LIMIT`."""
    container_create_timeout_s: Seconds = 240
    """How long the creation of a container may take.
    Source: amazon-ecs-agent, agent/dockerclient/timeout.go, `CreateContainerTimeout`."""
    container_start_timeout_s: Seconds = 180
    """How long the start of a container may take.
    Source: amazon-ecs-agent README, `ECS_CONTAINER_START_TIMEOUT`."""
    container_pids_limit: Annotated[int, Field(ge=1, le=4_194_304)] = 4096
    """Most processes and threads of one container; a task has as many for each of its containers.
    Source: Linux, include/linux/threads.h, `PID_MAX_LIMIT`."""
    log_driver_mode: Literal["blocking", "non-blocking"] = "non-blocking"
    """What a log driver does that doesn't keep up, unless its option `mode` says it:
    `non-blocking` drops lines and counts them, `blocking` makes the container wait.
    Source: ECS API, account setting `defaultLogDriverMode`."""
    logger_user: Annotated[str, matching(_LOGGER_USER, _LOGGER_USER_RULE)] | None = None
    """Whom the programs that send output run as: a name, or `uid:gid`. The local copies of output
    belong to it. Those of `json-file` and `awsfirelens` stay root. Without it: root."""
    host_volume_paths: Annotated[tuple[HostVolumePath, ...], NoDecode, split_commas] = ()
    """Directories, files and sockets of this machine that tasks in relaxed clusters may have as
    volumes (`host.sourcePath`), they and what is below them. A directory that a definition names
    below one and that isn't there is made. `/dev`, `/proc`, `/run`, `/sys` and the agent's own
    directories, or what is below them, must be named here themselves. See
    [beyond Fargate](beyond-fargate.md#shared-memory-and-directories-of-the-machine)."""
    log_host_paths: Annotated[tuple[AbsolutePath, ...], NoDecode, split_commas] = (
        Path("/dev/log"),
    )
    """Files and unix sockets of this machine, or what is below them, that a task definition may
    name in `splunk-capath`, `fluentd-capath`, `syslog-tls-…`, `fluentd-address` and
    `syslog-address`."""
    awslogs_endpoint: Url | None = None
    """URL of CloudWatch Logs, unless the option `awslogs-endpoint` of a definition that isn't for
    Fargate says another. Without it: `aws_endpoint_url`, else AWS in the log group's region."""
    log_copy: bool = True
    """Whether a copy of a container's output is kept here, whatever its log driver. Without it
    `fargate logs` shows only containers whose log driver is `json-file`, or `awslogs` with
    `aws = "local"`."""
    log_max_size: Annotated[
        str,
        Field(max_length=15),
        matching(
            r"[0-9]*[1-9][0-9]*(\.[0-9]+)? ?[kKmMgGtT]?[bB]?", "must be a size such as 10m, above 0"
        ),
    ] = "10m"
    """Size of a file of that copy; the next one is begun then."""
    log_max_file: Annotated[int, Field(ge=1, le=9999)] = 2
    """How many files of that copy are kept for a container."""
    log_retention_s: Retention = 24 * 3600
    """How long the local copy outlives its task, in seconds."""
    telemetry: bool = True
    """Whether the control plane is told every 20 seconds what each container has used. See
    `docs/telemetry.md`."""
    metrics_listen: ListenUrl | None = None
    """Where Prometheus finds the metrics of containers and of the agent, at `/metrics`, such as
    `http://127.0.0.1:51681`. Nobody is asked for a key there. Without it: nowhere."""
    otlp_endpoint: Url | None = None
    """URL of a collector that gets a trace of every task's start, by OTLP over HTTP, such as
    `http://127.0.0.1:4318`. Needs the extra `otel` of the package. Without it: none is made."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that the agent logs."""

    @property
    def is_local(self) -> bool:
        """Whether this machine does without AWS."""
        if self.aws is not None:
            return self.aws == "local"
        return self.aws_endpoint_url is None and self.aws_credentials_file is None

    @property
    def logs_are_local(self) -> bool:
        """Whether the driver `awslogs` keeps its local copy alone, whatever `log_copy` says."""
        return self.is_local and self.awslogs_endpoint is None

    @property
    def logger_socket(self) -> Path:
        """Where loggers ask for what only they get; in a directory of its own beside `socket`."""
        return self.socket.with_name(f"{self.socket.name}.loggers") / "agent.sock"

    @field_validator("clusters")
    @classmethod
    def _check_clusters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(CLUSTER_NAME, name):
                raise ValueError("must be names of clusters, such as default")
        return tuple(dict.fromkeys(value))

    @field_validator("cluster")
    @classmethod
    def _check_cluster(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("clusters"):
            raise ValueError("cluster is the old name of clusters: remove it")
        if value is not None and not re.fullmatch(CLUSTER_NAME, value):
            raise ValueError("must be the name of a cluster, such as default")
        return value

    @field_validator("image_disk_low_percent")
    @classmethod
    def _check_low_percent(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("image_disk_high_percent", value):
            raise ValueError("must not be above image_disk_high_percent")
        return value

    @model_validator(mode="after")
    def _take_over_cluster(self) -> "AgentSettings":
        """Let `cluster` pin the agent as it did before there was `clusters`."""
        if self.cluster is not None:
            self.clusters = (self.cluster,)
        return self


class AgentKey(BaseModel):
    """What `key_file` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_key_id: Annotated[str, Field(min_length=1)]
    secret_access_key: Annotated[str, Field(min_length=1, repr=False)]


def read_agent_settings(file: Path) -> Reading[AgentSettings]:
    """Read the settings, as far as they are right; a file that isn't there counts as empty.

    Raises:
        SettingsError: the file can't be read, or isn't TOML.
    """
    return read_settings(AgentSettings, file)


def read_key_file(file: Path) -> AgentKey:
    """Read the agent's key from a file of its own.

    Raises:
        SettingsError: it isn't there, can't be read, or lacks something.
    """
    return read_document(AgentKey, file)
