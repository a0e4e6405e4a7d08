"""`GET /metrics/tasks`: what tasks have used in buckets of 20 seconds, page by page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Select, select, tuple_

from fargate_agent.controlplane.access.permissions import Asked, Target, Targets
from fargate_agent.controlplane.errors import cluster_not_found, invalid_parameter
from fargate_agent.controlplane.pages import parse_since
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Cluster, Task, TaskMetrics
from fargate_agent.controlplane.telemetry.rows import render_row
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.telemetry import BUCKET_S

ACTION: Final = "fargate:GetTaskMetrics"
"""What a policy allows to whoever may read them; ECS has no such action."""
PAGE_ROWS: Final = 1000
"""Buckets in an answer."""
RECENT_S: Final = 3 * BUCKET_S
"""How far back an answer goes that wasn't asked for a time: an agent sends a few seconds late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsQuery:
    """Which buckets are asked for."""

    cluster: str
    """Its name."""
    task: str | None
    """Id or ARN; None: all of the cluster."""
    since: float
    """Seconds since 1970."""
    after: tuple[int, str] | None
    """The last bucket of the page before, and its task."""


def parse_query(parameters: Mapping[str, str], plane: Plane, now_s: float) -> MetricsQuery:
    """Read the parameters of the request.

    Raises:
        ApiError: one is unknown or makes no sense.
    """
    if unknown := sorted(parameters.keys() - {"cluster", "task", "since", "nextToken"}):
        raise invalid_parameter(f"Unknown parameter: {unknown[0]}.")
    since, token = parameters.get("since"), parameters.get("nextToken")
    return MetricsQuery(
        cluster=plane.arns.parse_cluster(parameters.get("cluster") or plane.settings.cluster),
        task=parameters.get("task") or None,
        since=now_s - RECENT_S if since is None else parse_since(since),
        after=None if token is None else _parse_token(token),
    )


def find_targets(query: MetricsQuery, plane: Plane) -> Targets:
    """Return what the caller needs permission for: one task, or what is in the cluster."""
    asked = Asked({"cluster": query.cluster}, plane.arns, plane.settings.cluster)
    resource = "*" if query.task is None else asked.member_arn("task", query.task)
    return [Target(resource, asked.in_cluster())]


async def answer(plane: Plane, query: MetricsQuery) -> Json:
    """Return the next page: the oldest buckets first.

    Raises:
        ApiError: there is no such cluster, or the ARN is not that of a task in it.
        SQLAlchemyError: the database could not do it.
    """
    async with plane.store.read() as session:
        if await session.get(Cluster, query.cluster) is None:
            raise cluster_not_found()
        rows = (await session.execute(_select(plane, query))).all()
    tasks: dict[str, Json] = {}
    for task_id, at, document in rows[:PAGE_ROWS]:
        arn = plane.arns.task(query.cluster, task_id)
        task = tasks.setdefault(task_id, {"taskArn": arn, "buckets": []})
        task["buckets"].append({"at": at, **render_row(document)})
    page: Json = {"periodSeconds": BUCKET_S, "tasks": list(tasks.values())}
    if len(rows) > PAGE_ROWS:
        task_id, at, _ = rows[PAGE_ROWS - 1]
        page["nextToken"] = f"{at}:{task_id}"
    return page


def _select(plane: Plane, query: MetricsQuery) -> Select[str, int, Json]:
    chosen = (
        select(TaskMetrics.task_id, TaskMetrics.at, TaskMetrics.document)
        .join(Task, Task.id == TaskMetrics.task_id)
        .where(Task.cluster == query.cluster, TaskMetrics.at >= int(query.since))
        .order_by(TaskMetrics.at, TaskMetrics.task_id)
        .limit(PAGE_ROWS + 1)
    )
    if query.task is not None:
        chosen = chosen.where(
            TaskMetrics.task_id == plane.arns.parse_task(query.task, query.cluster)
        )
    if query.after is not None:
        chosen = chosen.where(tuple_(TaskMetrics.at, TaskMetrics.task_id) > tuple_(*query.after))
    return chosen


def _parse_token(text: str) -> tuple[int, str]:
    at, colon, task_id = text.partition(":")
    if not (colon and at.isascii() and at.isdecimal() and len(at) <= 12):
        raise invalid_parameter("nextToken must be that of the page before.")
    return int(at), task_id
