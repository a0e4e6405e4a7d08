"""Tasks as the local socket shows them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fargate_agent.local.tasks import render_task
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    TaskFacts,
    TaskStatus,
)
from tests.fakes import MOMENT
from tests.messages import TASK_ARN, container_json, site, task_message


@dataclass(frozen=True)
class Run:
    plan: TaskPlan
    facts: TaskFacts


def test_task_is_shown_with_the_runs_and_the_health_of_its_containers() -> None:
    checked = ContainerFacts(
        name="web",
        runtime_id="r",
        status=ContainerStatus.RUNNING,
        restart_count=1,
        runs=[RunFacts(started_at=MOMENT, finished_at=MOMENT, exit_code=3), RunFacts()],
        health=HealthFacts(
            status=HealthStatus.UNHEALTHY, since=MOMENT, failing_streak=2, exit_code=1, output="no"
        ),
    )
    plain = ContainerFacts(name="side", runtime_id="s")
    facts = TaskFacts(status=TaskStatus.RUNNING, containers={"web": checked, "side": plain})
    plan = plan_task(task_message(container_json("web")), site(Path("/nowhere")))

    shown = json.loads(json.dumps(render_task(cast(TaskRun, Run(plan, facts)))))

    moment = MOMENT.isoformat()
    unknown = {"createdAt": None, "startedAt": None, "finishedAt": None, "exitCode": None}
    assert shown == {
        "taskArn": TASK_ARN,
        "status": "RUNNING",
        "health": "UNHEALTHY",
        "containers": [
            {
                "name": "web",
                "status": "RUNNING",
                "restartCount": 1,
                "health": {
                    "status": "UNHEALTHY",
                    "since": moment,
                    "failingStreak": 2,
                    "exitCode": 1,
                    "output": "no",
                },
                "runs": [
                    {
                        "createdAt": None,
                        "startedAt": moment,
                        "finishedAt": moment,
                        "exitCode": 3,
                    },
                    unknown,
                ],
            },
            {
                "name": "side",
                "status": "PENDING",
                "restartCount": 0,
                "health": None,
                "runs": [],
            },
        ],
    }
