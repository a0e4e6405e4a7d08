"""What a service needs next, decided from what is there. Pure.

A task is *present* until it is being stopped, *wanted* unless somebody wants it to end, and
*healthy* if it is wanted, runs, and has passed the health checks of its essential containers.
`maximumPercent` bounds those that are present, `minimumHealthyPercent` those that are healthy. A
task is *sick* if a check has failed and the grace period since its start is over. A task is
*leaving* if one of the primary deployment is to take its place: it belongs to another deployment,
or its instance is drained.

Source: Amazon ECS developer guide, "Deploy Amazon ECS services by replacing tasks", "Draining
Amazon ECS container instances", and "How the Amazon ECS deployment circuit breaker detects
failures"; ECS API, DeploymentConfiguration and CreateService.healthCheckGracePeriodSeconds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fargate_agent.controlplane.services.failures import Record, judge, reaches_threshold
from fargate_agent.controlplane.state.model import Deployment, Service, Task
from fargate_agent.controlplane.tasks import health

MAX_STARTS: Final = 10
"""Tasks that are started in one transaction. Source: ECS API, RunTask.count."""

UNHEALTHY: Final = "Task failed container health checks"
DRAINED: Final = "The container instance of the task is being drained"
"""Unverified."""

_PRESENT: Final = ("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING")


@dataclass(frozen=True, slots=True)
class Stop:
    """A task that is to end, and why."""

    task_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done for a service, all in one transaction."""

    settled: tuple[str, ...] = ()
    """Tasks of which it was taken note that they have ended."""
    record: Record
    """Of the failures so far."""
    starts: int = 0
    """So many tasks of the primary deployment."""
    stops: tuple[Stop, ...] = ()
    drained: tuple[str, ...] = ()
    """Deployments of which no task is left."""
    outcome: Literal["COMPLETED", "FAILED"] | None = None
    """Of the primary deployment, if it has just come out."""
    steady: bool = False
    """Whether everything is as it should be."""
    blocked: bool = False
    """Whether minimum and maximum percent leave nothing that could be done."""
    ended: bool = False
    """Whether a service that is being deleted is gone."""
    look_again_at: float | None = None
    """When time alone may change what there is to do."""


def plan_service(
    service: Service,
    deployments: Sequence[Deployment],
    tasks: Sequence[Task],
    now: float,
    *,
    draining: Collection[str] = (),
    crowded: bool = False,
) -> Decision:
    """Decide what a service needs.

    Args:
        service: ACTIVE or DRAINING.
        deployments: its primary one, and those that are being replaced.
        tasks: of these deployments; those that have ended only if they were not settled.
        now: seconds since 1970.
        draining: ids of the container instances that are being drained.
        crowded: whether there was no room for another task: then some make room for it, as far as
            the minimum allows.
    """
    primary = next(deployment for deployment in deployments if deployment.status == "PRIMARY")
    ended = [task for task in tasks if task.last_status == "STOPPED"]
    live = [task for task in tasks if task.last_status != "STOPPED"]
    settled = tuple(task.id for task in ended)
    record = judge(service, primary, ended, live, now)
    if service.status == "DRAINING":
        return _plan_end(primary, live, Decision(settled=settled, record=record))
    if primary.rollout_state == "IN_PROGRESS" and reaches_threshold(service, record):
        return Decision(settled=settled, record=record, outcome="FAILED")
    situation = _Situation(
        now=now,
        service=service,
        primary=primary,
        live=live,
        draining=draining,
        start_not_before=record.start_not_before,
    )
    stops = [
        *_scale_in(situation),
        *_end_unhealthy(situation),
        *_replace(situation, crowded=crowded),
    ]
    starts = situation.starts
    drained = _find_drained(deployments, live)
    steady = not (stops or starts) and _is_steady(situation, deployments, drained)
    return Decision(
        settled=settled,
        record=record,
        starts=starts,
        stops=tuple(stops),
        drained=drained,
        steady=steady,
        outcome="COMPLETED" if steady and primary.rollout_state == "IN_PROGRESS" else None,
        blocked=situation.is_blocked and not stops,
        look_again_at=_next_look(situation),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Situation:
    """Where a service stands, counted."""

    now: float
    service: Service
    primary: Deployment
    live: Sequence[Task]
    draining: Collection[str]
    start_not_before: float

    @property
    def goal(self) -> int:
        return self.service.desired_count

    @property
    def minimum(self) -> int:
        return -(-self.goal * self._limit("minimumHealthyPercent") // 100)

    @property
    def maximum(self) -> int:
        return self.goal * self._limit("maximumPercent") // 100

    def _limit(self, member: str) -> int:
        return int(self.service.document["deploymentConfiguration"][member])

    @property
    def staying(self) -> list[Task]:
        """Wanted tasks of the primary deployment, on machines that are not drained."""
        return [task for task in self.live if _is_wanted(task) and not self.is_leaving(task)]

    @property
    def good(self) -> list[Task]:
        """Tasks that may stay."""
        return [task for task in self.staying if not self.is_sick(task)]

    @property
    def sick(self) -> list[Task]:
        """Tasks that would stay if they were healthy."""
        return [task for task in self.staying if self.is_sick(task)]

    @property
    def old(self) -> list[Task]:
        """Wanted tasks that are leaving, in the order in which they go."""
        found = [task for task in self.live if _is_wanted(task) and self.is_leaving(task)]
        return sorted(found, key=lambda task: (_is_healthy(task), task.created_at))

    @property
    def present(self) -> int:
        return sum(_is_present(task) for task in self.live)

    @property
    def healthy(self) -> int:
        return sum(_is_healthy(task) for task in self.live)

    @property
    def may_start(self) -> bool:
        return self.primary.rollout_state != "FAILED" and self.now >= self.start_not_before

    @property
    def missing(self) -> int:
        """Tasks that the primary deployment lacks."""
        return max(self.goal - len(self.good), 0)

    @property
    def room(self) -> int:
        return max(self.maximum - self.present, 0)

    @property
    def starts(self) -> int:
        return min(self.missing, self.room, MAX_STARTS) if self.may_start else 0

    @property
    def to_free(self) -> int:
        """Tasks that have to go before the missing ones can come."""
        return max(self.missing - self.room, 0) if self.may_start else 0

    @property
    def scaling(self) -> str:
        return f"Scaling activity initiated by (deployment {self.primary.id})"

    @property
    def is_blocked(self) -> bool:
        """Whether only the limits keep tasks from being started, and nothing will change that."""
        settled = all(_is_healthy(task) for task in self.live)
        return self.may_start and self.missing > 0 and self.room == 0 and settled

    def is_leaving(self, task: Task) -> bool:
        return task.deployment_id != self.primary.id or self.is_drained(task)

    def is_sick(self, task: Task) -> bool:
        return task.health_status == health.UNHEALTHY and self.now >= self.grace_until(task)

    def grace_until(self, task: Task) -> float:
        period_s = self.service.document.get("healthCheckGracePeriodSeconds", 0)
        return (task.started_at or self.now) + float(period_s)

    def is_drained(self, task: Task) -> bool:
        return task.instance_id in self.draining

    def may_go(self, task: Task) -> bool:
        """Whether the task isn't protected."""
        return task.protected_until is None or task.protected_until <= self.now


def _scale_in(at: _Situation) -> list[Stop]:
    """End what the primary deployment has too much of: what isn't healthy, then the newest."""
    excess = len(at.good) - at.goal
    order = sorted(
        at.good,
        key=lambda task: (_is_healthy(task), task.last_status == "RUNNING", -task.created_at),
    )
    chosen = [task for task in order if at.may_go(task)][: max(excess, 0)]
    return [Stop(task.id, at.scaling) for task in chosen]


def _end_unhealthy(at: _Situation) -> list[Stop]:
    """End unhealthy tasks when others run in their place, or to make room for these."""
    replaced = sum(_is_healthy(task) for task in at.good) >= at.goal
    count = len(at.sick) if replaced else at.to_free
    return [Stop(task.id, UNHEALTHY) for task in at.sick[:count]]


def _replace(at: _Situation, *, crowded: bool) -> list[Stop]:
    """End tasks that are leaving as new ones take their place.

    What isn't healthy goes at once; but nothing of that if the primary deployment has failed.
    """
    failed = at.primary.rollout_state == "FAILED"
    useless = 0 if failed else sum(not _is_healthy(task) for task in at.old)
    surplus = max(at.healthy - at.goal, 0)
    wanted = max(at.to_free, at.missing if crowded and at.may_start else 0)
    freed = min(wanted, max(at.healthy - surplus - at.minimum, 0))
    order = [t for t in at.old if not failed or _is_healthy(t)]
    chosen = [task for task in order if at.may_go(task)][: useless + surplus + freed]
    return [Stop(task.id, _reason(at, task)) for task in chosen]


def _reason(at: _Situation, task: Task) -> str:
    if at.is_sick(task):
        return UNHEALTHY
    return DRAINED if at.is_drained(task) else at.scaling


def _find_drained(deployments: Sequence[Deployment], live: Sequence[Task]) -> tuple[str, ...]:
    busy = {task.deployment_id for task in live if _is_present(task)}
    return tuple(d.id for d in deployments if d.status != "PRIMARY" and d.id not in busy)


def _is_steady(at: _Situation, deployments: Sequence[Deployment], drained: Sequence[str]) -> bool:
    alone = len(deployments) - len(drained) == 1
    complete = at.present == at.goal == sum(_is_healthy(task) for task in at.good)
    return alone and complete and at.primary.rollout_state != "FAILED"


def _next_look(at: _Situation) -> float | None:
    moments = [task.protected_until for task in at.live if task.protected_until is not None]
    moments += [at.grace_until(task) for task in at.good if task.health_status == health.UNHEALTHY]
    if at.missing:
        moments.append(at.start_not_before)
    return min((moment for moment in moments if moment > at.now), default=None)


def _plan_end(primary: Deployment, live: Sequence[Task], so_far: Decision) -> Decision:
    """End everything; protection doesn't count when the service is deleted."""
    reason = f"Scaling activity initiated by (deployment {primary.id})"
    return Decision(
        settled=so_far.settled,
        record=so_far.record,
        stops=tuple(Stop(task.id, reason) for task in live if _is_wanted(task)),
        ended=not any(_is_present(task) for task in live),
    )


def _is_present(task: Task) -> bool:
    return task.last_status in _PRESENT


def _is_wanted(task: Task) -> bool:
    return task.desired_status == "RUNNING"


def _is_healthy(task: Task) -> bool:
    return (
        _is_wanted(task) and task.last_status == "RUNNING" and health.is_passed(task.health_status)
    )
