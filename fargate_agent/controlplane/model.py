"""What the control plane remembers, as tables. Times are seconds since 1970.

Documents of the API (definitions, containers of a task) are kept as the JSON that they are: nobody
searches inside them.
"""

from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

SCHEMA_VERSION: Final = 1

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


class Base(DeclarativeBase):
    """Base of every table."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Cluster(Base):
    """A cluster."""

    __tablename__ = "clusters"

    name: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="ACTIVE")
    document: Mapped[dict[str, Any]]
    """The members of the request that are only stored: settings, tags, configuration."""


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
    access_key_id: Mapped[str]
    """The key it registered with: no other may speak for it."""
    status: Mapped[str] = mapped_column(default="ACTIVE")
    cpu_units: Mapped[int | None]
    memory_mib: Mapped[int | None]
    """None: it did not say how much it has."""
    document: Mapped[dict[str, Any]]
    """The members of the request that are only stored."""
    registered_at: Mapped[float]
    timeline: Mapped[int] = mapped_column(default=0)
    """Of its latest task manifest."""


class Eni(Base):
    """An ENI, from its provisioning until the task that has it is forgotten."""

    __tablename__ = "enis"

    id: Mapped[str] = mapped_column(primary_key=True)
    attachment_id: Mapped[str] = mapped_column(unique=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), unique=True)
    subnet_id: Mapped[str]
    address: Mapped[str]
    mac: Mapped[str]
    private_dns_name: Mapped[str]
    status: Mapped[str] = mapped_column(default="PRECREATED")
    """Of the attachment."""
    in_use: Mapped[bool] = mapped_column(default=True)
    """Whether the address is taken."""
    created_at: Mapped[float]

    __table_args__ = (
        Index(
            "enis_address_in_use",
            "subnet_id",
            "address",
            unique=True,
            sqlite_where=text("in_use"),
        ),
    )


class Task(Base):
    """A task: the intent, and how far it has come."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(primary_key=True)
    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"), index=True)
    family: Mapped[str]
    revision: Mapped[int]
    instance_id: Mapped[str] = mapped_column(ForeignKey("container_instances.id"), index=True)
    delivery: Mapped[str] = mapped_column(default="WAITING")
    """WAITING: no agent has heard of it; SENT: one may have; ACKED: one answers for it."""
    desired_status: Mapped[str] = mapped_column(default="RUNNING")
    last_status: Mapped[str] = mapped_column(default="PROVISIONING", index=True)
    version: Mapped[int] = mapped_column(default=1)
    stop_code: Mapped[str | None]
    stopped_reason: Mapped[str | None]
    cpu_units: Mapped[int]
    memory_mib: Mapped[int]
    group: Mapped[str]
    started_by: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    """The members of the Task shape that never change."""
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
    )


class ClientToken(Base):
    """What RunTask has answered to a client token."""

    __tablename__ = "client_tokens"

    cluster: Mapped[str] = mapped_column(ForeignKey("clusters.name"), primary_key=True)
    token: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    task_ids: Mapped[list[Any]]
    created_at: Mapped[float]
