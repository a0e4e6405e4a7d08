"""Clusters: changed, counted, deleted."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.ecs import FARGATE, NETWORK, create_service, kind_of, run

FARGATE_ONLY = [{"capacityProvider": "FARGATE", "weight": 1}]


def only(ecs: Any, **request: Any) -> Any:
    """Describe one cluster."""
    return ecs.describe_clusters(**request)["clusters"][0]


def test_cluster_shows_only_what_is_asked_for(ecs: Any) -> None:
    ecs.create_cluster(
        clusterName="blue",
        tags=[{"key": "team", "value": "a"}],
        settings=[{"name": "containerInsights", "value": "enhanced"}],
        configuration={"executeCommandConfiguration": {"logging": "NONE"}},
        capacityProviders=["FARGATE"],
        defaultCapacityProviderStrategy=FARGATE_ONLY,
    )

    plain = only(ecs, clusters=["blue"])
    full = only(
        ecs,
        clusters=["blue"],
        include=["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"],
    )

    assert (plain["settings"], plain["tags"], plain["statistics"]) == ([], [], [])
    assert "configuration" not in plain
    assert plain["capacityProviders"] == ["FARGATE"]
    assert plain["defaultCapacityProviderStrategy"] == [
        {"capacityProvider": "FARGATE", "weight": 1, "base": 0}
    ]
    assert full["settings"] == [{"name": "containerInsights", "value": "enhanced"}]
    assert full["configuration"] == {"executeCommandConfiguration": {"logging": "NONE"}}
    assert full["tags"] == [{"key": "team", "value": "a"}]
    assert full["attachmentsStatus"] == "UPDATE_COMPLETE"
    assert {"name": "runningFargateTasksCount", "value": "0"} in full["statistics"]


def test_update_changes_what_is_given_and_leaves_the_rest(ecs: Any) -> None:
    configuration = {"executeCommandConfiguration": {"logging": "DEFAULT"}}
    ecs.create_cluster(clusterName="blue", configuration=configuration)

    ecs.update_cluster_settings(
        cluster="blue", settings=[{"name": "containerInsights", "value": "enabled"}]
    )
    ecs.put_cluster_capacity_providers(
        cluster="blue",
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        defaultCapacityProviderStrategy=FARGATE_ONLY,
    )
    answer = ecs.update_cluster(
        cluster="blue", configuration={"executeCommandConfiguration": {"logging": "NONE"}}
    )

    cluster = answer["cluster"]
    assert cluster["settings"] == [{"name": "containerInsights", "value": "enabled"}]
    assert cluster["capacityProviders"] == ["FARGATE", "FARGATE_SPOT"]
    assert cluster["configuration"] == {"executeCommandConfiguration": {"logging": "NONE"}}


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        pytest.param(
            {"settings": [{"name": "containerInsights", "value": "on"}]},
            "InvalidParameterException",
            "containerInsights must be one of",
            id="value of a setting",
        ),
        pytest.param(
            {"capacityProviders": ["mine"]},
            "InvalidParameterException",
            "The specified capacity provider was not found.",
            id="provider",
        ),
        pytest.param(
            {"defaultCapacityProviderStrategy": FARGATE_ONLY},
            "InvalidParameterException",
            "not associated with the cluster",
            id="strategy without provider",
        ),
        pytest.param(
            {"serviceConnectDefaults": {"namespace": "n"}},
            "UnsupportedFeatureException",
            "serviceConnectDefaults",
            id="service connect",
        ),
        pytest.param(
            {"configuration": {"managedStorageConfiguration": {"kmsKeyId": "k"}}},
            "UnsupportedFeatureException",
            "managedStorageConfiguration",
            id="encrypted storage",
        ),
        pytest.param(
            {"tags": [{"key": "aws:a", "value": ""}]},
            "InvalidParameterException",
            "aws:",
            id="tag",
        ),
    ],
)
def test_what_a_cluster_can_not_have_is_refused(
    request_: dict[str, Any], kind: str, text: str, ecs: Any
) -> None:
    with pytest.raises(ClientError, match=text) as refusal:
        ecs.create_cluster(clusterName="blue", **request_)

    assert kind_of(refusal) == kind
    assert len(ecs.list_clusters()["clusterArns"]) == 1


def test_deleted_cluster_is_inactive_and_its_name_can_be_used_again(ecs: Any) -> None:
    tags = [{"key": "team", "value": "a"}]
    ecs.create_cluster(clusterName="blue", tags=tags)

    deleted = ecs.delete_cluster(cluster="blue")["cluster"]
    again = ecs.delete_cluster(cluster="blue")["cluster"]

    assert (deleted["status"], again["status"]) == ("INACTIVE", "INACTIVE")
    assert only(ecs, clusters=["blue"])["status"] == "INACTIVE"
    assert [arn.rpartition("/")[2] for arn in ecs.list_clusters()["clusterArns"]] == ["default"]
    with pytest.raises(ClientError, match=r"Cluster was not ACTIVE\."):
        ecs.list_tasks(cluster="blue")
    made = ecs.create_cluster(clusterName="blue")["cluster"]
    assert (made["status"], made["tags"]) == ("ACTIVE", [])


def test_unknown_cluster_can_not_be_changed(ecs: Any) -> None:
    for call in (ecs.delete_cluster, ecs.update_cluster):
        with pytest.raises(ecs.exceptions.ClusterNotFoundException, match=r"Cluster not found\."):
            call(cluster="red")


def test_at_most_100_clusters_are_described(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.describe_clusters(clusters=["blue"] * 101)


def test_cluster_of_another_account_is_missing(ecs: Any) -> None:
    arn = "arn:aws:ecs:us-east-1:999999999999:cluster/default"

    answer = ecs.describe_clusters(clusters=[arn])

    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


async def test_cluster_with_something_in_it_is_not_deleted(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    running = await asyncio.to_thread(run, ecs)
    await simulated_agent.take()
    arn = running["tasks"][0]["taskArn"]
    kinds = []

    async def try_to_delete() -> None:
        with pytest.raises(ClientError) as refusal:
            await asyncio.to_thread(ecs.delete_cluster, cluster="default")
        kinds.append(kind_of(refusal))

    await try_to_delete()
    await simulated_agent.submit(arn, "STOPPED")
    await try_to_delete()
    await asyncio.to_thread(create_service, ecs, desiredCount=0)
    await try_to_delete()

    assert kinds == [
        "ClusterContainsTasksException",
        "ClusterContainsContainerInstancesException",
        "ClusterContainsServicesException",
    ]


async def test_tasks_services_and_instances_are_counted(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    await asyncio.to_thread(run, ecs, count=3)
    tasks = [await simulated_agent.take() for _ in range(3)]
    await simulated_agent.bring_up(tasks[0])
    await simulated_agent.submit(tasks[1]["arn"], "STOPPED")
    await asyncio.to_thread(create_service, ecs, desiredCount=0)

    cluster = await asyncio.to_thread(only, ecs, include=["STATISTICS"])

    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (1, 1)
    assert cluster["registeredContainerInstancesCount"] == 1
    assert cluster["activeServicesCount"] == 1
    statistics = {item["name"]: item["value"] for item in cluster["statistics"]}
    assert statistics["runningFargateTasksCount"] == "1"
    assert statistics["pendingFargateTasksCount"] == "1"
    assert statistics["activeFargateServiceCount"] == "1"


def test_fargates_capacity_providers_are_there(ecs: Any) -> None:
    arn = "arn:aws:ecs:us-east-1:000000000000:capacity-provider"

    everything = ecs.describe_capacity_providers()
    some = ecs.describe_capacity_providers(capacityProviders=[f"{arn}/FARGATE_SPOT", "mine"])

    assert [item["name"] for item in everything["capacityProviders"]] == ["FARGATE", "FARGATE_SPOT"]
    assert some["capacityProviders"] == [
        {
            "capacityProviderArn": f"{arn}/FARGATE_SPOT",
            "name": "FARGATE_SPOT",
            "status": "ACTIVE",
            "type": "FARGATE_SPOT",
            "tags": [],
        }
    ]
    assert some["failures"] == [{"arn": f"{arn}/mine", "reason": "MISSING"}]


def test_capacity_providers_of_a_cluster_are_those_it_has(ecs: Any) -> None:
    ecs.create_cluster(clusterName="blue", capacityProviders=["FARGATE"])

    answer = ecs.describe_capacity_providers(cluster="blue")

    assert [item["name"] for item in answer["capacityProviders"]] == ["FARGATE"]


async def test_default_strategy_counts_for_what_names_no_capacity(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    providers = ["FARGATE", "FARGATE_SPOT"]
    strategy = [{"capacityProvider": "FARGATE"}, {"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    await asyncio.to_thread(
        ecs.put_cluster_capacity_providers,
        cluster="default",
        capacityProviders=providers,
        defaultCapacityProviderStrategy=strategy,
    )

    unnamed = await asyncio.to_thread(
        ecs.run_task, taskDefinition="web", networkConfiguration=NETWORK
    )
    named = await asyncio.to_thread(run, ecs)
    service = await asyncio.to_thread(
        ecs.create_service,
        serviceName="web",
        taskDefinition="web",
        desiredCount=0,
        networkConfiguration=NETWORK,
    )

    assert unnamed["tasks"][0]["capacityProviderName"] == "FARGATE_SPOT"
    assert "capacityProviderName" not in named["tasks"][0]
    assert "launchType" not in service["service"]
    assert [item["weight"] for item in service["service"]["capacityProviderStrategy"]] == [0, 1]


def test_capacity_providers_come_in_pages(ecs: Any) -> None:
    first = ecs.describe_capacity_providers(maxResults=1)
    second = ecs.describe_capacity_providers(maxResults=1, nextToken=first["nextToken"])

    assert [item["name"] for item in second["capacityProviders"]] == ["FARGATE_SPOT"]
    assert "nextToken" not in second


@pytest.mark.one_store
def test_capacity_providers_can_not_be_made(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.UnsupportedFeatureException):
        ecs.create_capacity_provider(
            name="mine", autoScalingGroupProvider={"autoScalingGroupArn": "arn"}
        )
