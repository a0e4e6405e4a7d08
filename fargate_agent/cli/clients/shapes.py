"""The members of ECS's answers that the command line reads. They are plain dictionaries.

Source: botocore, `data/ecs/2014-11-13/service-2.json`.
"""

from datetime import datetime
from typing import Any, NotRequired, TypedDict

Definition = dict[str, Any]
"""A task definition as `register-task-definition --cli-input-json` takes it."""


class NetworkInterface(TypedDict, total=False):
    """The address that a container has from its task's ENI."""

    privateIpv4Address: str
    ipv6Address: str


class Health(TypedDict):
    """What the checks of a container have found. Not of ECS: its agent knows it."""

    status: str
    since: datetime | None
    failingStreak: int
    """Failures in a row that count."""
    exitCode: int | None
    """Of the last check."""
    output: str
    """The end of what the last check wrote."""


class Run(TypedDict):
    """One time that a container ran. Not of ECS: its agent knows it."""

    createdAt: datetime | None
    startedAt: datetime | None
    finishedAt: datetime | None
    exitCode: int | None


class Container(TypedDict):
    """One container of a task."""

    name: str
    lastStatus: NotRequired[str]
    image: NotRequired[str]
    imageDigest: NotRequired[str]
    runtimeId: NotRequired[str]
    exitCode: NotRequired[int]
    reason: NotRequired[str]
    healthStatus: NotRequired[str]
    essential: NotRequired[bool]
    """Of the task definition, not of a task; not there if nobody asked for it."""
    restartCount: NotRequired[int]
    """Ours: ECS doesn't say it."""
    health: NotRequired[Health]
    runs: NotRequired[list[Run]]
    """The first and the last ones."""
    networkInterfaces: NotRequired[list[NetworkInterface]]


class Detail(TypedDict, total=False):
    """One fact about an attachment."""

    name: str
    value: str


class Attachment(TypedDict, total=False):
    """Something attached to a task; the ENI is one."""

    type: str
    status: str
    details: list[Detail]


class Replacement(TypedDict):
    """What stands for something of a definition on the machine of a task. Ours."""

    kind: str
    what: str
    by: str


class Task(TypedDict):
    """One task."""

    taskArn: str
    clusterArn: NotRequired[str]
    taskDefinitionArn: NotRequired[str]
    lastStatus: NotRequired[str]
    desiredStatus: NotRequired[str]
    stopCode: NotRequired[str]
    stoppedReason: NotRequired[str]
    healthStatus: NotRequired[str]
    cpu: NotRequired[str]
    memory: NotRequired[str]
    group: NotRequired[str]
    startedBy: NotRequired[str]
    launchType: NotRequired[str]
    platformVersion: NotRequired[str]
    containers: NotRequired[list[Container]]
    attachments: NotRequired[list[Attachment]]
    replacements: NotRequired[list[Replacement]]
    createdAt: NotRequired[datetime]
    pullStartedAt: NotRequired[datetime]
    pullStoppedAt: NotRequired[datetime]
    startedAt: NotRequired[datetime]
    stoppingAt: NotRequired[datetime]
    executionStoppedAt: NotRequired[datetime]
    stoppedAt: NotRequired[datetime]


class Failure(TypedDict, total=False):
    """Why something could not be done or found."""

    arn: str
    reason: str
    detail: str


class TasksAnswer(TypedDict):
    """What RunTask and DescribeTasks answer."""

    tasks: list[Task]
    failures: list[Failure]


def task_id(task: Task) -> str:
    """The last part of the task's ARN."""
    return task["taskArn"].rpartition("/")[2]


def definition_name(task: Task) -> str:
    """The `family:revision` of the task's definition."""
    return task.get("taskDefinitionArn", "").rpartition("/")[2]


def addresses(task: Task) -> list[str]:
    """The addresses of the task's ENI; none before it is there."""
    wanted = ("privateIPv4Address", "ipv6Address")
    return [
        detail["value"]
        for attachment in task.get("attachments", [])
        for detail in attachment.get("details", [])
        if detail.get("name") in wanted and detail.get("value")
    ]
