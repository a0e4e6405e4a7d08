import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.plan import HealthCheckPlan, RestartPlan, TaskPlan, plan_task
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    TaskFacts,
    TaskStatus,
)
from fargate_agent.tmds.clock import read_clock_drift
from fargate_agent.tmds.metadata import (
    Site,
    Tags,
    describe_container,
    describe_task,
)
from fargate_agent.wire.metadata import ClockDrift, TagError, render_moment
from tests.messages import (
    CLUSTER_ARN,
    TASK_ARN,
    TASK_ID,
    container_json,
    eni_json,
    site,
    task_message,
)

CHECK = HealthCheckPlan(argv=("true",), interval_s=30, timeout_s=5, retries=3, start_period_s=0)
RESTART = RestartPlan(ignored_exit_codes=frozenset(), attempt_period_s=60)
DIGEST = f"sha256:{'1' * 64}"


HERE = Site(snapshotter="overlayfs", storage_bytes=261 * 2**20 + 1)


@dataclass(frozen=True)
class View:
    plan: TaskPlan
    facts: TaskFacts


def plan(**changes: object) -> TaskPlan:
    return plan_task(task_message(container_json("web"), **changes), site(Path("/nowhere")))


def at(second: int, microsecond: int = 0) -> datetime:
    return datetime(2026, 1, 5, 10, 0, second, microsecond, tzinfo=UTC)


def running(task: TaskPlan) -> View:
    (web,) = task.containers
    facts = ContainerFacts(
        name="web",
        runtime_id=web.id,
        status=ContainerStatus.RUNNING,
        image_digest=DIGEST,
        runs=[RunFacts(created_at=at(7, 120436), started_at=at(8))],
    )
    return View(
        task,
        TaskFacts(
            status=TaskStatus.RUNNING,
            pull_started_at=at(2, 310000),
            pull_stopped_at=at(6),
            containers={"web": facts},
        ),
    )


NETWORK = {
    "NetworkMode": "awsvpc",
    "IPv4Addresses": ["10.213.0.5"],
    "AttachmentIndex": 0,
    "MACAddress": "02:00:00:00:00:05",
    "IPv4SubnetCIDRBlock": "10.213.0.0/24",
    "DomainNameServers": ["10.213.0.2"],
    "DomainNameSearchList": ["ec2.internal"],
    "PrivateDNSName": "ip-10-213-0-5.ec2.internal",
    "SubnetGatewayIpv4Address": "10.213.0.1/24",
}


def container_golden(task: TaskPlan) -> dict[str, Any]:
    (web,) = task.containers
    return {
        "DockerId": web.id,
        "Name": "web",
        "DockerName": "web",
        "Image": "web:1",
        "ImageID": DIGEST,
        "Labels": {
            "com.amazonaws.ecs.cluster": CLUSTER_ARN,
            "com.amazonaws.ecs.container-name": "web",
            "com.amazonaws.ecs.task-arn": TASK_ARN,
            "com.amazonaws.ecs.task-definition-family": "demo",
            "com.amazonaws.ecs.task-definition-version": "7",
        },
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": 2},
        "CreatedAt": "2026-01-05T10:00:07.120436Z",
        "StartedAt": "2026-01-05T10:00:08Z",
        "Type": "NORMAL",
        "LogDriver": "json-file",
        "ContainerARN": web.arn,
        "Networks": [NETWORK],
        "Snapshotter": "overlayfs",
    }


def dump(golden: object) -> str:
    return json.dumps(golden, separators=(",", ":"))


def test_container_is_described_member_by_member_in_ecs_order() -> None:
    task = plan()

    answer = describe_container(running(task), task.containers[0], HERE).to_json()

    assert answer.decode() == dump(container_golden(task))
    assert task.containers[0].id.startswith(f"{TASK_ID}-")


def test_networks_are_counted_in_the_order_of_the_enis() -> None:
    second = eni_json(index=1, ec2Id="eni-2", macAddress="02:00:00:00:00:06")
    task = plan(elasticNetworkInterfaces=[second, eni_json()])

    answer = describe_container(running(task), task.containers[0], HERE)

    networks = [(network.attachment_index, network.mac_address) for network in answer.networks]
    assert networks == [(0, "02:00:00:00:00:05"), (1, "02:00:00:00:00:06")]


def test_task_is_described_member_by_member_in_ecs_order() -> None:
    task = plan(zone="us-east-1a", vpcId="vpc-1", serviceName="shop", group="service:shop")
    clock = ClockDrift(
        clock_error_bound=0.43,
        reference_timestamp=at(59),
        clock_synchronization_status="SYNCHRONIZED",
    )

    answer = describe_task(running(task), replace(HERE, clock=clock)).to_json()

    assert answer.decode() == dump(
        {
            "Cluster": CLUSTER_ARN,
            "TaskARN": TASK_ARN,
            "Family": "demo",
            "Revision": "7",
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Limits": {"CPU": 0.25, "Memory": 512},
            "PullStartedAt": "2026-01-05T10:00:02.31Z",
            "PullStoppedAt": "2026-01-05T10:00:06Z",
            "AvailabilityZone": "us-east-1a",
            "LaunchType": "FARGATE",
            "Containers": [container_golden(task)],
            "Group": "service:shop",
            "ClockDrift": {
                "ClockErrorBound": 0.43,
                "ReferenceTimestamp": "2026-01-05T10:00:59Z",
                "ClockSynchronizationStatus": "SYNCHRONIZED",
            },
            "EphemeralStorageMetrics": {"Utilized": 261, "Reserved": 20480},
            "FaultInjectionEnabled": False,
        }
    )


def test_tags_that_cannot_be_had_are_an_error_beside_the_rest() -> None:
    why = TagError(
        error_field="TaskTags",
        error_code="AccessDeniedException",
        error_message="no",
        status_code=400,
        request_id="abc",
        resource_arn=TASK_ARN,
    )

    answer = json.loads(describe_task(running(plan()), HERE, Tags({}, (why,))).to_json())

    assert "TaskTags" not in answer
    assert answer["Errors"] == [
        {
            "ErrorField": "TaskTags",
            "ErrorCode": "AccessDeniedException",
            "ErrorMessage": "no",
            "StatusCode": 400,
            "RequestId": "abc",
            "ResourceARN": TASK_ARN,
        }
    ]


def test_task_whose_subnet_names_no_servers_shows_the_resolver_of_the_vpc() -> None:
    eni = eni_json(domainNameServers=[], vpcCidrBlocks=["10.213.0.0/16"])
    task = plan(elasticNetworkInterfaces=[eni])

    answer = describe_container(running(task), task.containers[0], HERE)

    assert answer.networks[0].domain_name_servers == ("10.213.0.2",)


def test_options_of_awslogs_name_the_stream() -> None:
    web = container_json(
        "web",
        logConfiguration={
            "logDriver": "awslogs",
            "options": {
                "awslogs-stream-prefix": "p",
                "awslogs-region": "us-east-1",
                "awslogs-group": "/case",
            },
        },
    )
    message = task_message(web, executionRoleCredentials={"credentialsId": "i", "roleArn": "r"})
    task = plan_task(message, site(Path("/nowhere")))

    answer = describe_container(running(task), task.containers[0], HERE)

    assert list((answer.log_options or {}).items()) == [
        ("awslogs-group", "/case"),
        ("awslogs-region", "us-east-1"),
        ("awslogs-stream", f"p/web/{TASK_ID}"),
    ]


def test_task_is_described_before_anything_has_happened_to_it() -> None:
    task = plan(cpu=None, memory=None)

    answer = json.loads(describe_task(View(task, TaskFacts()), HERE).to_json())

    assert answer["KnownStatus"] == "PROVISIONING"
    assert "Limits" not in answer
    assert "PullStartedAt" not in answer
    (web,) = answer["Containers"]
    assert (web["KnownStatus"], web["ImageID"]) == ("PENDING", "")
    assert (web["DockerId"], web["DockerName"]) == ("", "")
    assert web["Networks"] == [NETWORK]
    assert not {"CreatedAt", "StartedAt", "ExitCode"} & web.keys()


def test_ended_container_shows_how_it_ended() -> None:
    task = plan()
    view = running(task)
    view.facts.status = TaskStatus.STOPPING
    web = view.facts.containers["web"]
    web.status, web.runs = ContainerStatus.STOPPED, [RunFacts(exit_code=0, finished_at=at(30))]

    answer = json.loads(describe_container(view, task.containers[0], HERE).to_json())

    assert answer["DesiredStatus"] == answer["KnownStatus"] == "STOPPED"
    assert answer["ExitCode"] == 0
    assert answer["FinishedAt"] == "2026-01-05T10:00:30Z"


@pytest.mark.parametrize(
    ("facts", "health"),
    [
        pytest.param(None, {}, id="never started"),
        pytest.param(HealthFacts(), {}, id="not checked yet"),
        pytest.param(
            HealthFacts(exit_code=1, output="refused"),
            {"exitCode": 1, "output": "refused"},
            id="fails in its start period",
        ),
        pytest.param(
            HealthFacts(status=HealthStatus.HEALTHY, since=at(38), exit_code=0),
            {"status": "HEALTHY", "statusSince": "2026-01-05T10:00:38Z"},
            id="healthy",
        ),
        pytest.param(
            HealthFacts(
                status=HealthStatus.UNHEALTHY, since=at(39, 500000), exit_code=7, output="no"
            ),
            {
                "status": "UNHEALTHY",
                "statusSince": "2026-01-05T10:00:39.5Z",
                "exitCode": 7,
                "output": "no",
            },
            id="unhealthy",
        ),
    ],
)
def test_health_and_restarts_are_shown_where_ecs_has_them(
    facts: HealthFacts | None, health: dict[str, Any]
) -> None:
    task = plan()
    view = running(task)
    view.facts.containers["web"].health = facts
    web = replace(task.containers[0], health=CHECK, restart=RESTART)

    answer = describe_container(view, web, HERE).to_json()

    golden = {**container_golden(task), "RestartCount": 0}
    members = list(golden.items())
    position = list(golden).index("LogDriver")
    members.insert(position, ("Health", health))
    assert answer.decode() == dump(dict(members))


def test_restarts_are_counted() -> None:
    task = plan()
    view = running(task)
    view.facts.containers["web"].restart_count = 3
    web = replace(task.containers[0], restart=RESTART)

    answer = json.loads(describe_container(view, web, HERE).to_json())

    assert answer["RestartCount"] == 3


def test_what_a_definition_says_is_shown() -> None:
    web = container_json(
        "web",
        cpu=128,
        memory=256,
        portMappings=[{"containerPort": 8080}, {"containerPort": 53, "protocol": "udp"}],
        dockerLabels={"team": "blue"},
        mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
        logConfiguration={"logDriver": "json-file", "options": {"max-file": "3"}},
    )
    message = task_message(web, volumes=[{"name": "data"}])
    task = plan_task(message, site(Path("/nowhere")))

    answer = json.loads(describe_container(running(task), task.containers[0], HERE).to_json())

    assert answer["Ports"] == [
        {"ContainerPort": 8080, "Protocol": "tcp", "HostPort": 8080},
        {"ContainerPort": 53, "Protocol": "udp", "HostPort": 53},
    ]
    assert answer["Labels"]["team"] == "blue"
    assert answer["Limits"] == {"CPU": 128, "Memory": 256}
    assert answer["Volumes"] == [{"DockerName": "data", "Destination": "/data"}]
    assert answer["LogOptions"] == {"max-file": "3"}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        pytest.param(at(7), "2026-01-05T10:00:07Z", id="whole-second"),
        pytest.param(at(10, 100), "2026-01-05T10:00:10.0001Z", id="fraction"),
    ],
)
def test_moment_is_written_as_go_does(moment: datetime, text: str) -> None:
    assert render_moment(moment) == text


def test_clock_drift_comes_from_the_kernel() -> None:
    drift = read_clock_drift()

    assert drift is not None
    assert drift.clock_error_bound >= 0
