"""A scenario, and how a task and its drivers are when it begins.

A diary has one line for each moment; calls of one moment are apart by `/`. `report` is what is
written down and told, `save` what is only written down for the next agent.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import ContainerFacts, ContainerStatus, RunFacts, TaskStatus
from tests.fakes import MOMENT, Diary, FakeDrivers, FakeLogs, fake_drivers
from tests.messages import container_json, eni_json, site, task_message

WEB_AND_LOG: Final = (container_json("web"), container_json("log"))
INIT_AND_APP: Final = (
    container_json("app", dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
    container_json("init", essential=False),
)
ROUTED: Final = (
    container_json(
        "web",
        logConfiguration={
            "logDriver": "awsfirelens",
            "options": {"Name": "x"},
            "secretOptions": [{"name": "apikey", "valueFrom": "key"}],
        },
    ),
    container_json("router", firelensConfiguration={"type": "fluentbit"}, essential=False),
)
RESTARTED: Final = (
    container_json("web", restartPolicy={"enabled": True, "restartAttemptPeriod": 60}),
)
CHECKED: Final = (
    container_json("web", dependsOn=[{"containerName": "db", "condition": "HEALTHY"}]),
    container_json("db", healthCheck={"command": ["CMD", "x"], "interval": 5}),
)
OTHER_ENI: Final = eni_json(index=1, ec2Id="eni-2", macAddress="02:00:00:00:00:06")


def exits(**codes: int) -> Mapping[str, ExitStatus]:
    return {name: ExitStatus(code=code, at=MOMENT) for name, code in codes.items()}


def adopted(run: TaskRun, drivers: FakeDrivers) -> None:
    names = {container.name for container in run.plan.containers}
    drivers.runtime.created, drivers.runtime.started = set(names), set(names)
    run.facts.status, run.is_new = TaskStatus.RUNNING, False


def runs_of_web(*runs: tuple[float, int]) -> Callable[[TaskRun, FakeDrivers], None]:
    def arrange(run: TaskRun, drivers: FakeDrivers) -> None:
        drivers.runtime.runs["web"] = [
            (after_s, ExitStatus(code=code, at=MOMENT)) for after_s, code in runs
        ]

    return arrange


def adopted_between_two_runs(run: TaskRun, drivers: FakeDrivers) -> None:
    adopted(run, drivers)
    drivers.runtime.runs["web"] = [(0, exits(web=1)["web"]), (1, exits(web=7)["web"])]
    drivers.runtime.ended = {"web"}
    web = ContainerFacts(name="web", runtime_id="1", status=ContainerStatus.RUNNING)
    web.runs = [RunFacts(created_at=MOMENT, started_at=MOMENT, exit_code=1)]
    run.facts.containers = {"web": web}


def adopted_while_stopping(run: TaskRun, drivers: FakeDrivers) -> None:
    run.facts.status = TaskStatus.STOPPING
    run.facts.reason = "Task stopped by user"


def stopped_before(run: TaskRun, drivers: FakeDrivers) -> None:
    run.stop.set_result("changed my mind")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    diary: str
    containers: tuple[dict[str, Any], ...] = WEB_AND_LOG
    exits: Mapping[str, ExitStatus] = field(default_factory=lambda: exits(web=7))
    arrange: Callable[[TaskRun, FakeDrivers], None] = lambda run, drivers: None
    stop_at: str | None = None
    """The report that the stop comes with."""
    enis: tuple[dict[str, Any], ...] = (eni_json(),)

    @property
    def entries(self) -> list[str]:
        lines = self.diary.strip().splitlines()
        return [call for line in lines for call in line.strip().split(" / ")]

    @property
    def undo_begins(self) -> int:
        """The place of the entry with which a task that has ended is taken back."""
        return len(self.entries) - 1 - self.entries[::-1].index("ready")

    def begin(self, diary: Diary) -> tuple[TaskRun, FakeDrivers]:
        """Return a task of it, and its drivers, which write into another diary."""
        drivers = fake_drivers(diary, self.exits)
        if any("firelensConfiguration" in container for container in self.containers):
            logs = {**drivers.all.logs, "awsfirelens": FakeLogs(diary)}
            drivers.all = replace(drivers.all, logs=logs)
        message = task_message(*self.containers, elasticNetworkInterfaces=self.enis)
        run = TaskRun(
            plan=plan_task(message, site(Path("/nowhere"))),
            stop=asyncio.get_running_loop().create_future(),
            is_new=True,
        )
        self.arrange(run, drivers)
        return run, drivers
