import uuid
from pathlib import Path

import pytest
from pydantic import ValidationError

from fargate_agent.errors import ResourceInitializationError, TaskDependencyError, TaskError
from fargate_agent.plan import plan_task
from tests.messages import TASK_ARN, TASK_ID, container_json, eni_json, site, task_message

SITE = site(Path("/state"))


def test_plan_names_everything_after_the_task() -> None:
    plan = plan_task(task_message(), SITE)

    assert plan.netns == Path(f"/state/netns/fargate-{TASK_ID}")
    assert plan.cgroup == f"/ecs/{TASK_ID}"
    assert plan.containers[0].id.startswith(f"{TASK_ID}-")
    assert len(plan.containers[0].id) == len(TASK_ID) + 11
    assert plan.containers[0].cgroup == f"/ecs/{TASK_ID}/{plan.containers[0].id}"


def test_plan_is_the_same_when_it_is_made_again() -> None:
    assert plan_task(task_message(), SITE) == plan_task(task_message(), SITE)


def test_eni_has_the_prefix_of_its_gateway_and_the_name_fargate_gives() -> None:
    (eni,) = plan_task(task_message(), SITE).enis

    assert str(eni.address) == "10.213.0.5/24"
    assert str(eni.gateway) == "10.213.0.1"
    assert eni.ifname == "eth1"


@pytest.mark.parametrize(
    ("said", "nat"), [({}, True), ({"nat": True}, True), ({"nat": False}, False)]
)
def test_eni_reaches_other_networks_unless_the_message_says_no(
    said: dict[str, object], nat: bool
) -> None:
    (eni,) = plan_task(task_message(elasticNetworkInterfaces=[eni_json(**said)]), SITE).enis

    assert eni.nat is nat


def test_containers_come_after_those_they_depend_on() -> None:
    message = task_message(
        container_json("c", dependsOn=[{"containerName": "b", "condition": "START"}]),
        container_json("b", volumesFrom=[{"sourceContainer": "a"}]),
        container_json("a"),
    )

    plan = plan_task(message, SITE)

    assert [container.name for container in plan.containers] == ["a", "b", "c"]


def test_volumes_are_shared_and_taken_over() -> None:
    message = task_message(
        container_json("a", mountPoints=[{"sourceVolume": "v", "containerPath": "/data"}]),
        container_json("b", volumesFrom=[{"sourceContainer": "a", "readOnly": True}]),
        volumes=[{"name": "v"}],
    )

    first, second = plan_task(message, SITE).containers

    assert first.mounts[0].source == Path(f"/state/tasks/{TASK_ID}/storage/volumes/v")
    assert second.mounts[0].source == first.mounts[0].source
    assert second.mounts[0].read_only


def test_agent_variables_win_over_the_definition_but_for_the_region() -> None:
    container = container_json(
        environment={"ECS_AGENT_URI": "mine", "AWS_REGION": "eu-west-1", "A": "1"}
    )

    environment = plan_task(task_message(container), SITE).containers[0].environment

    assert environment["ECS_AGENT_URI"].startswith("http://169.254.170.2/api/")
    assert environment["AWS_REGION"] == "eu-west-1"
    assert "AWS_DEFAULT_REGION" not in environment
    assert environment["A"] == "1"


def test_containers_of_a_task_with_a_role_are_told_where_its_credentials_are() -> None:
    role = {"credentialsId": "id-1", "roleArn": "arn:aws:iam::000000000000:role/task"}

    task = plan_task(task_message(roleCredentials=role), SITE)
    without = plan_task(task_message(executionRoleCredentials=role), SITE)

    name = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    assert task.containers[0].environment[name] == "/v2/credentials/id-1"
    assert name not in without.containers[0].environment
    assert [role.credentials_id for role in (*task.roles, *without.roles)] == ["id-1"] * 2


def test_metadata_ids_follow_from_the_key_of_the_task_and_from_nothing_else() -> None:
    message = task_message(container_json("a"), container_json("b"))
    plans = [plan_task(message, SITE, key) for key in ("one", "other", "one")]

    ids = [[container.metadata_id for container in plan.containers] for plan in plans]

    assert ids[0] == ids[2]
    assert len({*ids[0], *ids[1]}) == 4
    for plan in plans:
        for container in plan.containers:
            environment = container.environment["ECS_CONTAINER_METADATA_URI_V4"]
            assert environment == f"http://169.254.170.2/v4/{container.metadata_id}"
            assert container.metadata_id not in container.arn


def test_containers_of_an_agent_that_had_no_key_keep_their_metadata_ids() -> None:
    (web,) = plan_task(task_message(), SITE).containers

    assert web.metadata_id == str(uuid.uuid5(uuid.NAMESPACE_URL, f"{TASK_ARN}/web"))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        pytest.param(
            {"elastic_network_interfaces": ()},
            ResourceInitializationError,
            "no network interface",
            id="no ENI",
        ),
        pytest.param({"containers": ()}, ResourceInitializationError, "no containers", id="empty"),
    ],
)
def test_task_is_refused_when(
    changes: dict[str, object], error: type[TaskError], text: str
) -> None:
    message = task_message().model_copy(update=changes)

    with pytest.raises(error, match=text):
        plan_task(message, SITE)


def test_unknown_volume_is_refused() -> None:
    container = container_json(mountPoints=[{"sourceVolume": "nope", "containerPath": "/x"}])

    with pytest.raises(ResourceInitializationError, match="unknown volume 'nope'"):
        plan_task(task_message(container), SITE)


@pytest.mark.parametrize(
    ("containers", "text"),
    [
        pytest.param(
            [
                container_json("a", dependsOn=[{"containerName": "b", "condition": "START"}]),
                container_json("b", dependsOn=[{"containerName": "a", "condition": "START"}]),
            ],
            "wait for each other",
            id="circle",
        ),
        pytest.param(
            [container_json("a", dependsOn=[{"containerName": "x", "condition": "START"}])],
            "'x', which does not exist",
            id="unknown",
        ),
    ],
)
def test_dependencies_that_cannot_be_met_are_refused(
    containers: list[dict[str, object]], text: str
) -> None:
    with pytest.raises(TaskDependencyError, match=text):
        plan_task(task_message(*containers), SITE)


def test_enis_are_named_in_the_order_of_their_indexes() -> None:
    first, second = eni_json(ec2Id="eni-1"), eni_json(ec2Id="eni-2", index=1)

    plan = plan_task(task_message(elasticNetworkInterfaces=[second, first]), SITE)

    assert [(eni.id, eni.ifname, eni.primary) for eni in plan.enis] == [
        ("eni-1", "eth1", True),
        ("eni-2", "eth2", False),
    ]


@pytest.mark.parametrize(
    ("eni", "kind", "parent", "vlan_id"),
    [
        pytest.param(
            eni_json(interfaceAssociationProtocol="default"), "nic", None, None, id="as ACS says it"
        ),
        pytest.param(eni_json(interfaceAssociationProtocol="nic"), "nic", None, None, id="nic"),
        pytest.param(
            eni_json(
                interfaceAssociationProtocol="vlan",
                interfaceVlanProperties={
                    "vlanId": "133",
                    "trunkInterfaceMacAddress": "52:54:00:00:00:09",
                },
            ),
            *("vlan", "52:54:00:00:00:09", 133),
            id="branch",
        ),
        pytest.param(
            eni_json(
                interfaceAssociationProtocol="vlan",
                interfaceVlanProperties={"vlanId": "1", "trunkInterface": "eth1"},
            ),
            *("vlan", "eth1", 1),
            id="trunk by name",
        ),
    ],
)
def test_eni_is_planned_by_the_words_of_acs(
    eni: dict[str, object], kind: str, parent: str | None, vlan_id: int | None
) -> None:
    (planned,) = plan_task(task_message(elasticNetworkInterfaces=[eni]), SITE).enis

    assert (planned.kind, planned.parent, planned.vlan_id) == (kind, parent, vlan_id)


@pytest.mark.parametrize(
    "eni",
    [
        pytest.param(eni_json(interfaceAssociationProtocol="tunnel"), id="tunnel"),
        pytest.param(eni_json(interfaceAssociationProtocol="nic", nat=False), id="private nic"),
        pytest.param(eni_json(interfaceAssociationProtocol="macvlan"), id="macvlan without parent"),
        pytest.param(eni_json(interfaceAssociationProtocol="cni"), id="cni without network"),
        pytest.param(eni_json(interfaceAssociationProtocol="vlan"), id="vlan without trunk"),
        pytest.param(
            eni_json(
                interfaceAssociationProtocol="vlan",
                interfaceVlanProperties={"vlanId": "4095", "trunkInterface": "eth1"},
            ),
            id="vlan id too high",
        ),
        pytest.param(
            eni_json(ipv4Addresses=[{"privateAddress": "10.213.0.5"}]), id="no primary address"
        ),
    ],
)
def test_eni_that_cannot_be_made_is_refused(eni: dict[str, object]) -> None:
    with pytest.raises(ResourceInitializationError, match="eni-0123456789abcdef0"):
        plan_task(task_message(elasticNetworkInterfaces=[eni]), SITE)


@pytest.mark.parametrize(
    "task_id",
    [
        pytest.param("../../../etc/passwd0000000000000", id="path"),
        pytest.param("9f6a0c1b2d3e4f50617283940a5b6c7/", id="slash"),
        pytest.param("9F6A0C1B2D3E4F50617283940A5B6C7D", id="upper case"),
        pytest.param("short", id="too short"),
        pytest.param("9f6a0c1b2d3e4f50617283940a5b6c7d\n", id="line end"),
    ],
)
def test_task_id_with_other_characters_is_refused(task_id: str) -> None:
    arn = f"arn:aws:ecs:us-east-1:000000000000:task/default/{task_id}"

    with pytest.raises(ValidationError, match="not the ARN of a task"):
        task_message(arn=arn)
