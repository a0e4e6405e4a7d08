"""What the control plane remembers, as tables. Times are seconds since 1970.

Documents of the API (definitions, containers of a task) are kept as the JSON that they are: nobody
searches inside them. A change here needs a migration in `migrations/versions`.
"""

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    literal_column,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

STATUSES: Final = (
    "PROVISIONING",
    "PENDING",
    "ACTIVATING",
    "RUNNING",
    "DEACTIVATING",
    "STOPPING",
    "DEPROVISIONING",
    "STOPPED",
)
"""`lastStatus` of a task, in order. Source: ECS developer guide, "Task lifecycle"."""


def is_after(status: str, other: str) -> bool:
    """Whether a task may move from `other` to `status`."""
    return STATUSES.index(status) > STATUSES.index(other)


_LONG: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's integers have 64 bits by any name, and only an INTEGER can be its row number."""


class Base(DeclarativeBase):
    """Base of every table."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, float: Double}


class Cluster(Base):
    """A cluster."""

    __tablename__ = "clusters"

    name: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="ACTIVE")
    document: Mapped[dict[str, Any]]
    """The members of the request that are only stored: settings, configuration."""
    tags: Mapped[list[Any]] = mapped_column(default=list)


class TaskDefinition(Base):
    """One revision of a family."""

    __tablename__ = "task_definitions"

    family: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="ACTIVE")
    document: Mapped[dict[str, Any]]
    """As DescribeTaskDefinition answers it."""
    tags: Mapped[list[Any]]


class ContainerInstance(Base):
    """An agent, as it has registered."""

    __tablename__ = "container_instances"

    id: Mapped[str] = mapped_column(primary_key=True)
    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"))
    """Where it is registered, described and drained."""
    clusters: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Whose tasks it takes, `*` for every cluster's; None: those of `cluster` alone."""
    access_key_id: Mapped[str]
    """The key it registered with: no other may speak for it."""
    status: Mapped[str] = mapped_column(default="ACTIVE")
    cpu_units: Mapped[int | None]
    memory_mib: Mapped[int | None]
    storage_gib: Mapped[int | None]
    """None: it did not say how much it has."""
    reserved_tasks: Mapped[int] = mapped_column(default=0)
    reserved_cpu_units: Mapped[int] = mapped_column(default=0)
    reserved_memory_mib: Mapped[int] = mapped_column(default=0)
    reserved_storage_gib: Mapped[int] = mapped_column(default=0)
    """How many tasks have it for their own, and what is reserved for them."""
    served: Mapped[bool] = mapped_column(default=False)
    """Whether it was ever given a task."""
    connection: Mapped[str | None]
    """Id of the websocket that was opened last."""
    connected_until: Mapped[float] = mapped_column(default=0.0)
    """The process that holds the websocket moves this on while it lives."""
    silent: Mapped[bool] = mapped_column(default=False)
    """Whether its tasks show that nothing was heard of it."""
    document: Mapped[dict[str, Any]]
    """The members of the request that are only stored."""
    tags: Mapped[list[Any]] = mapped_column(default=list)
    registered_at: Mapped[float]
    timeline: Mapped[int] = mapped_column(_LONG, default=0)
    """Of its latest task manifest."""


class Eni(Base):
    """An ENI, from its provisioning until the task that has it is forgotten."""

    __tablename__ = "enis"

    id: Mapped[str] = mapped_column(primary_key=True)
    attachment_id: Mapped[str] = mapped_column(unique=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), unique=True)
    subnet_id: Mapped[str]
    address: Mapped[str]
    ipv6_address: Mapped[str | None]
    security_groups: Mapped[list[Any]] = mapped_column(default=list)
    mac: Mapped[str]
    vlan_id: Mapped[int | None]
    private_dns_name: Mapped[str]
    status: Mapped[str] = mapped_column(default="PRECREATED")
    """Of the attachment."""
    in_use: Mapped[bool] = mapped_column(default=True)
    """Whether the address is taken."""
    vpc_id: Mapped[str | None]
    availability_zone: Mapped[str | None]
    """Of its subnet, which may since be gone."""
    created_at: Mapped[float]

    groups: Mapped[list["EniGroup"]] = relationship(passive_deletes=True)
    """Written with a new ENI; `security_groups` is what is read."""

    __table_args__ = (
        Index(
            "enis_address_in_use",
            "subnet_id",
            "address",
            unique=True,
            sqlite_where=text("in_use"),
            postgresql_where=text("in_use"),
        ),
    )


class EniGroup(Base):
    """That an ENI is in a security group."""

    __tablename__ = "eni_groups"

    eni_id: Mapped[str] = mapped_column(ForeignKey("enis.id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[str] = mapped_column(primary_key=True)

    __table_args__ = (Index("eni_groups_by_group", "group_id"),)


class SubnetCursor(Base):
    """How far the addresses of a subnet have been handed out, as they go round."""

    __tablename__ = "subnet_cursors"

    subnet_id: Mapped[str] = mapped_column(primary_key=True)
    last_address: Mapped[int] = mapped_column(BigInteger)
    """As a number."""


class Task(Base):
    """A task: the intent, and how far it has come."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(primary_key=True)
    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"))
    family: Mapped[str]
    revision: Mapped[int]
    instance_id: Mapped[str] = mapped_column(ForeignKey("container_instances.id"))
    delivery: Mapped[str] = mapped_column(default="WAITING")
    """WAITING: no agent has heard of it; SENT: one may have; ACKED: one answers for it;
    CHANGED: one does, and is to hear of a change."""
    desired_status: Mapped[str] = mapped_column(default="RUNNING")
    last_status: Mapped[str] = mapped_column(default="PROVISIONING")
    version: Mapped[int] = mapped_column(default=1)
    stop_code: Mapped[str | None]
    stopped_reason: Mapped[str | None]
    cpu_units: Mapped[int]
    memory_mib: Mapped[int]
    storage_gib: Mapped[int] = mapped_column(default=0)
    group: Mapped[str]
    started_by: Mapped[str | None]
    deployment_id: Mapped[str | None]
    """The deployment of a service that it belongs to."""
    settled: Mapped[bool] = mapped_column(default=False)
    """Whether the scheduler of its service has taken note that it has ended."""
    tags: Mapped[list[Any]] = mapped_column(default=list)
    health_status: Mapped[str] = mapped_column(default="UNKNOWN")
    """One of those of `tasks.health`."""
    connected: Mapped[bool] = mapped_column(default=True)
    """Whether its agent can be reached, as far as clients are told."""
    protected_until: Mapped[float | None]
    """Before this, a service doesn't choose it to be stopped."""
    document: Mapped[dict[str, Any]]
    """The members of the Task shape that never change, and what its machine has replaced."""
    containers: Mapped[list[Any]]
    """As DescribeTasks answers them, but for what follows from the ENI."""
    essential: Mapped[list[Any]]
    """Names of the essential containers."""
    message: Mapped[dict[str, Any]]
    """The task as the agent is told it: a `TaskMessage`."""
    created_at: Mapped[float]
    connectivity_at: Mapped[float | None]
    pull_started_at: Mapped[float | None]
    pull_stopped_at: Mapped[float | None]
    started_at: Mapped[float | None]
    stopping_at: Mapped[float | None]
    execution_stopped_at: Mapped[float | None]
    stopped_at: Mapped[float | None]

    eni: Mapped[Eni] = relationship(lazy="joined", innerjoin=True, passive_deletes=True)

    __table_args__ = (
        ForeignKeyConstraint(
            ["family", "revision"], ["task_definitions.family", "task_definitions.revision"]
        ),
        Index("tasks_listed", "cluster", "desired_status", "id"),
        Index(
            "tasks_live",
            "instance_id",
            sqlite_where=text("last_status != 'STOPPED'"),
            postgresql_where=text("last_status != 'STOPPED'"),
        ),
        Index(
            "tasks_live_of_cluster",
            "cluster",
            sqlite_where=text("last_status != 'STOPPED'"),
            postgresql_where=text("last_status != 'STOPPED'"),
        ),
        Index("tasks_of_instance", "instance_id"),
        Index("tasks_stopped", "stopped_at"),
        Index("tasks_of_deployment", "deployment_id", "settled"),
    )


LIVE: Final = Task.last_status != literal_column("'STOPPED'")
"""Selects the tasks that haven't ended, as the index of them has it. With the status as a parameter
a statement that is prepared for any status can't use that index."""


class ClientToken(Base):
    """What RunTask has answered to a client token."""

    __tablename__ = "client_tokens"

    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"), primary_key=True)
    token: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    task_ids: Mapped[list[Any]]
    created_at: Mapped[float]


class Service(Base):
    """A service: so many tasks of a definition, for as long as it is there."""

    __tablename__ = "services"

    id: Mapped[str] = mapped_column(primary_key=True)
    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"))
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="ACTIVE")
    desired_count: Mapped[int]
    document: Mapped[dict[str, Any]]
    """The members of the Service shape that only UpdateService changes."""
    tags: Mapped[list[Any]] = mapped_column(default=list)
    events: Mapped[list[Any]] = mapped_column(default=list)
    """As DescribeServices answers them: the newest first."""
    failed_starts: Mapped[int] = mapped_column(default=0)
    """Tasks in a row that ended without getting to run or soon after."""
    start_not_before: Mapped[float] = mapped_column(default=0.0)
    """Back-off: no task is started before this time."""
    steady: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    created_by: Mapped[str]

    __table_args__ = (
        Index(
            "services_by_name",
            "cluster",
            "name",
            unique=True,
            sqlite_where=text("status != 'INACTIVE'"),
            postgresql_where=text("status != 'INACTIVE'"),
        ),
    )


class Deployment(Base):
    """One roll-out of a service: what its tasks are made of."""

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(primary_key=True)
    """`ecs-svc/` and 19 digits."""
    service_id: Mapped[str] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    status: Mapped[str]
    """PRIMARY: what should be; ACTIVE: is being replaced; INACTIVE: is over."""
    rollout_state: Mapped[str] = mapped_column(default="IN_PROGRESS")
    rollout_reason: Mapped[str] = mapped_column(default="")
    desired_count: Mapped[int]
    failed_tasks: Mapped[int] = mapped_column(default=0)
    rolls_back: Mapped[bool] = mapped_column(default=False)
    document: Mapped[dict[str, Any]]
    """The RunTask request that each of its tasks is made of."""
    created_at: Mapped[float]
    updated_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (Index("deployments_of_service", "service_id", "status"),)


class AccountSetting(Base):
    """A setting of the account, or of one principal."""

    __tablename__ = "account_settings"

    principal: Mapped[str] = mapped_column(primary_key=True)
    """ARN; empty: the default of the account."""
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Event(Base):
    """Something that has happened, as it is told to whoever follows; see `events`."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(_LONG, Identity(always=False), primary_key=True)
    at: Mapped[float] = mapped_column(index=True)
    cluster: Mapped[str]
    kind: Mapped[str]
    """`detail-type` of EventBridge."""
    subject: Mapped[str] = mapped_column(index=True)
    """Id of the task, service, or instance."""
    detail: Mapped[dict[str, Any]]

    __table_args__ = ({"sqlite_autoincrement": True},)


class TaskMetrics(Base):
    """What a task has used in 20 seconds; see `telemetry.rows`."""

    __tablename__ = "task_metrics"

    task_id: Mapped[str] = mapped_column(
        ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True
    )
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """The end of the bucket: whole seconds, a multiple of its length."""
    document: Mapped[dict[str, Any]]

    __table_args__ = (Index("task_metrics_by_time", "at"),)


class Follower(Base):
    """How far a file or a webhook has been told the events."""

    __tablename__ = "followers"

    name: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    """Of the last event that it has been told."""
    holder: Mapped[str | None]
    """The process that tells it."""
    held_until: Mapped[float] = mapped_column(default=0.0)
    """When another process may take over."""
