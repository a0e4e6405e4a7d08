import re
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from fargate_agent.cli.clients.shapes import Task
from fargate_agent.cli.tasks.describe import render_task
from fargate_agent.cli.why.explain import explain
from fargate_agent.cli.why.explanation import AGENT_LOG
from fargate_agent.cli.why.show import render_document, render_why

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TASK_ID = "0123456789abcdef0123456789abcdef"
ARN = f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK_ID}"
REFUSED = "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided."


def make_task(**changes: object) -> Task:
    task: Task = {
        "taskArn": ARN,
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3",
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "createdAt": NOW - timedelta(seconds=100),
        "pullStartedAt": NOW - timedelta(seconds=98),
        "pullStoppedAt": NOW - timedelta(seconds=92.5),
        "startedAt": NOW - timedelta(seconds=92),
        "executionStoppedAt": NOW - timedelta(seconds=12),
        "stoppingAt": NOW - timedelta(seconds=12),
        "stoppedAt": NOW - timedelta(seconds=10),
        "containers": [
            {"name": "app", "lastStatus": "STOPPED", "exitCode": 3},
            {"name": "side", "lastStatus": "STOPPED", "exitCode": 143},
        ],
    }
    return cast(Task, {**task, **changes})


def failed_to_start(reason: str) -> Task:
    return make_task(
        stopCode="TaskFailedToStart", stoppedReason=reason, containers=[{"name": "app"}]
    )


def ended_with(exit_code: int, **more: object) -> Task:
    return make_task(containers=[{"name": "app", "exitCode": exit_code, **more}])


def uncoloured(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        pytest.param(
            "CannotPullContainerError: pull image manifest has been retried 7 time(s): failed to"
            " resolve ref registry.local/web:1: not found",
            "There is no such image in the registry.",
            id="image not found",
        ),
        pytest.param(
            "CannotPullContainerError: failed to resolve ref a/b: unexpected status from HEAD"
            " request to https://a/v2/b: 403 Forbidden",
            "doesn't let the task have the image",
            id="image refused",
        ),
        pytest.param(
            'CannotPullContainerError: failed to do request: Head "https://r/v2/": dial tcp'
            " 10.0.0.9:443: i/o timeout",
            "can't be reached through the task's network interface",
            id="registry away",
        ),
        pytest.param(
            "CannotPullContainerError: pull image manifest has been retried 7 time(s): image"
            " Manifest does not contain descriptor matching platform 'linux/amd64'",
            "was not built for this machine's processor",
            id="architecture",
        ),
        pytest.param(
            "CannotPullContainerError: write /x: no space left on device",
            "disk of the machine is full",
            id="disk full",
        ),
        pytest.param(
            "CannotPullContainerError: image web:1 can't be run: the task is for linux/arm64, and"
            " this machine runs linux/amd64",
            "for another processor than this machine has",
            id="other architecture",
        ),
        pytest.param(
            "CannotStartContainerError: OCI runtime create failed: unable to start container"
            ' process: exec: "nope": executable file not found in $PATH: unknown',
            "isn't in the image",
            id="no such program",
        ),
        pytest.param(
            "CannotStartContainerError: OCI runtime create failed: executable file `nope` not found"
            " in $PATH: No such file or directory: unknown",
            "isn't in the image",
            id="no such program, crun",
        ),
        pytest.param(
            'CannotStartContainerError: exec: "/bin": is a directory',
            "isn't in the image",
            id="program that is a directory",
        ),
        pytest.param(
            "CannotCreateContainerError: unable to set the kernel parameter net.core.somaxconn:"
            " invalid argument",
            "The kernel doesn't take what systemControls asks for",
            id="kernel parameter",
        ),
        pytest.param(
            "CannotStartContainerError: exec /run.sh: exec format error",
            "built for another processor",
            id="exec format",
        ),
        pytest.param(
            "ResourceInitializationError: ENI eni-1: address 10.0.0.4 is already in use on its"
            " subnet by 02:00:00:00:00:01",
            "Another machine on the subnet has the task's address",
            id="address in use",
        ),
        pytest.param(
            "Capacity is unavailable at this time. Please try again later or in a different"
            " availability zone",
            "No agent had room",
            id="capacity",
        ),
        pytest.param(
            "TaskDependencyError: container 'b' needs the SUCCESS of container 'a'",
            "waited for another",
            id="dependency",
        ),
        pytest.param(
            "ResourceInitializationError: failed to initialize logging driver: create stream has"
            " been retried 2 times: CredentialsEndpointError: CredentialsV2Request: this machine"
            " has no AWS keys: set aws_credentials_file",
            "no AWS keys to assume",
            id="awslogs without keys",
        ),
        pytest.param(
            "ResourceInitializationError: NoCredentialProviders: no valid providers in chain",
            "has no execution role",
            id="awslogs without a role",
        ),
        pytest.param(
            "ResourceInitializationError: unable to pull secrets or registry auth: execution"
            " resource retrieval failed: the secret prod/db has no value on this machine, which"
            " does without AWS: fargate secrets set prod/db",
            "has no value on this machine",
            id="secret without a value here",
        ),
        pytest.param(
            "ResourceInitializationError: failed to download env files: nothing stands for the"
            " bucket shop-config on this machine, which does without AWS",
            "in a bucket that nothing stands for",
            id="bucket without a directory here",
        ),
        pytest.param(
            "ResourceInitializationError: unable to make variables of a secret: /a is not a JSON"
            " object (label fargate.secret-keys of container 'web')",
            "isn't a JSON object",
            id="secret that is no object",
        ),
        pytest.param(
            "ResourceInitializationError: unable to pull secrets or registry auth: secret prod/db:"
            " the secret is not a JSON object, so it has no key user",
            "doesn't have the key that valueFrom",
            id="value of a secret that is no object",
        ),
        pytest.param(f"{REFUSED} local_roles names profile x,", "Correct local_roles", id="file"),
        pytest.param(f"{REFUSED} InvalidClientTokenId: x", "the machine's own keys", id="keys"),
        pytest.param(
            "failed to download env files: /a: No such file", "An environment file", id="env file"
        ),
        pytest.param(f"{REFUSED} AccessDenied: User: x", "trust policy", id="role of STS"),
        pytest.param(
            "ResourceInitializationError: unable to mount a tmpfs for the files that labels of a"
            " container ask for: Operation not permitted",
            "can't mount a tmpfs",
            id="no tmpfs",
        ),
        pytest.param(
            "ResourceInitializationError: unable to pull secrets or registry auth: the control"
            " plane has sent no credentials of role arn:aws:iam::0:role/x within 60 s",
            "waited for credentials of a role",
            id="no credentials came",
        ),
        pytest.param("InternalError: unexpected", "The agent failed", id="agent"),
        pytest.param("something new", "It failed before it ran", id="unknown"),
    ],
)
def test_reason_of_a_failed_start_is_explained(reason: str, said: str) -> None:
    explanation = explain(failed_to_start(reason))

    assert said in f"{explanation.what} {explanation.advice}"
    assert explanation.advice
    assert explanation.log in ("", AGENT_LOG) or "dependency" in reason.lower()


def test_reason_of_a_container_explains_a_failed_start_too() -> None:
    task = make_task(
        stopCode="TaskFailedToStart",
        stoppedReason="Task failed to start",
        containers=[{"name": "app", "reason": "CannotPullContainerError: not found"}],
    )

    assert explain(task).what == "There is no such image in the registry."


@pytest.mark.parametrize(
    ("task", "said"),
    [
        pytest.param(
            ended_with(137, reason="OutOfMemoryError: container killed due to memory usage"),
            "Container app used more memory than it may have",
            id="out of memory",
        ),
        pytest.param(ended_with(137), "was killed (SIGKILL", id="137"),
        pytest.param(ended_with(126), "may not execute it", id="126"),
        pytest.param(ended_with(127), "program that isn't in the image", id="127"),
        pytest.param(ended_with(139), "crashed", id="139"),
        pytest.param(ended_with(143), "asked to (SIGTERM", id="143"),
        pytest.param(ended_with(0), "did its work", id="0"),
        pytest.param(ended_with(42), "Container app failed with exit code 42.", id="other"),
    ],
)
def test_exit_code_is_explained(task: Task, said: str) -> None:
    assert said in explain(task).what


def test_container_that_is_not_essential_is_not_blamed() -> None:
    side = {"name": "side", "exitCode": 3, "essential": False}
    app = {"name": "app", "exitCode": 0, "essential": True}

    assert explain(make_task(containers=[side, app])).what.startswith("Container app did its work")


def test_container_that_was_only_stopped_along_is_not_blamed() -> None:
    containers = [{"name": "side", "exitCode": 143}, {"name": "app", "exitCode": 1}]

    assert "Container app" in explain(make_task(containers=containers)).what


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"stopCode": "UserInitiated", "stoppedReason": "enough"},
            "Somebody asked for its end.",
            id="user",
        ),
        pytest.param(
            {
                "stopCode": "ServiceSchedulerInitiated",
                "stoppedReason": "Task failed container health checks",
            },
            "was not healthy",
            id="unhealthy",
        ),
        pytest.param(
            {
                "stopCode": "ServiceSchedulerInitiated",
                "stoppedReason": "Scaling activity initiated by (deployment ecs-svc/1)",
            },
            "scaled in",
            id="scaling",
        ),
        pytest.param({"stopCode": "SpotInterruption"}, "spot capacity", id="spot"),
        pytest.param(
            {"lastStatus": "RUNNING", "desiredStatus": "RUNNING"}, "It runs.", id="running"
        ),
        pytest.param(
            {"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "connectivity": "DISCONNECTED"},
            "Nothing is heard of the agent",
            id="disconnected",
        ),
        pytest.param({"lastStatus": "RUNNING"}, "It is to stop", id="stopping"),
        pytest.param(
            {"lastStatus": "PROVISIONING", "desiredStatus": "RUNNING"},
            "No agent has begun",
            id="provisioning",
        ),
    ],
)
def test_state_of_a_task_is_explained(changes: dict[str, object], said: str) -> None:
    assert said in explain(make_task(**changes)).what


def test_why_tells_everything_in_its_order() -> None:
    lines = uncoloured(render_why(make_task(), explain(make_task()), 200, NOW))

    assert lines == [
        "Container app failed with exit code 3.",
        f"Its log says more: fargate logs {TASK_ID}",
        "",
        f"task          {TASK_ID}",
        "definition    web:3",
        "status        STOPPED",
        "reason        Essential container in task exited (EssentialContainerExited)",
        "app           STOPPED, exit code 3",
        "side          STOPPED, exit code 143",
        "",
        "created       2026-11-21 11:58:20.000Z (1m ago)",
        "pull begins   +2 s",
        "pull ends     +5.5 s",
        "runs          +0.5 s",
        "essential end +1m 20s",
        "stopping      +0 s",
        "stopped       +2 s",
    ]


@pytest.mark.parametrize("width", [60, 40])
def test_why_fits_a_narrow_terminal_and_loses_nothing(width: int) -> None:
    task = failed_to_start(
        "CannotPullContainerError: " + "failed to resolve ref web: not found; " * 5
    )

    lines = uncoloured(render_why(task, explain(task), width, NOW))

    assert max(map(len, lines)) <= width + len(TASK_ID)
    assert sum(line.count("resolve") for line in lines) == 5


def test_why_for_programs_is_json_with_the_time_line() -> None:
    document = render_document(make_task(), explain(make_task()))

    assert document["explanation"] == "Container app failed with exit code 3."
    assert [(m["what"], m["secondsLater"]) for m in document["timeline"]][:3] == [
        ("created", 0.0),
        ("pull begins", 2.0),
        ("pull ends", 5.5),
    ]
    assert document["task"]["taskArn"] == ARN


def test_reason_of_the_task_is_not_said_again_for_its_containers() -> None:
    reason = "CannotPullContainerError: not found"
    task = failed_to_start(reason)
    task["containers"] = [
        {"name": "app", "reason": reason},
        {"name": "side", "reason": "other"},
        {"name": "third", "reason": "other"},
    ]

    for lines in (
        render_why(task, explain(task), 200, NOW),
        render_task(task, 200, NOW),
    ):
        text = "\n".join(uncoloured(lines))
        assert text.count(reason) == 1
        assert text.count("other") == 1
        assert text.count("the reason above") == 2


def test_moments_are_told_in_the_order_in_which_they_happened() -> None:
    early = NOW - timedelta(seconds=50)

    lines = uncoloured(render_task(make_task(executionStoppedAt=early, stoppingAt=NOW), 200, NOW))

    labels = [line[:13].strip() for line in lines]
    assert labels.index("essential end") < labels.index("stopped") < labels.index("stopping")


REPLACED = [
    {"kind": "secret", "what": "prod/db", "by": "the value of `fargate secrets`"},
    {"kind": "environment-file", "what": "arn:aws:s3:::b/x.env", "by": "a file\nof this machine"},
]


def test_why_says_what_was_replaced_also_of_a_task_that_runs() -> None:
    task = make_task(
        lastStatus="RUNNING", desiredStatus="RUNNING", containers=[], replacements=REPLACED
    )

    lines = uncoloured(render_why(task, explain(task), 200, NOW))

    at = lines.index("replaced on this machine")
    assert lines[at - 1 : at + 4] == [
        "",
        "replaced on this machine",
        "  secret prod/db by the value of `fargate secrets`",
        "  environment file arn:aws:s3:::b/x.env by a file of this machine",
        "",
    ]
    assert render_document(task, explain(task))["replacements"] == REPLACED


def test_why_says_nothing_of_replacements_where_there_are_none() -> None:
    lines = render_why(make_task(), explain(make_task()), 200, NOW)

    assert "replaced on this machine" not in lines
    assert render_document(make_task(), explain(make_task()))["replacements"] == []
