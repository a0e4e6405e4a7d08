"""Whatever a request asks for and isn't done is named, all of it at once; what is off is taken."""

from typing import Any

import pytest

from tests.fixtures.ecs import FARGATE, NETWORK, create_service, describe_service, refusal

pytestmark = pytest.mark.one_store

ROLE = "arn:aws:iam::000000000000:role/task"
EXEC = {**FARGATE, "family": "exec", "taskRoleArn": ROLE}
NO_ROLE = (
    "The service couldn't be {} because a valid taskRoleArn is not being used. Specify a valid "
    "task role in your task definition and try again."
)
RUN_TASK_UNDONE = (
    "enableExecuteCommand, overrides.inferenceAcceleratorOverrides, "
    "overrides.containerOverrides.resourceRequirements are not supported."
)
SERVICE_UNDONE = (
    "loadBalancers, serviceConnectConfiguration, enableExecuteCommand, "
    "deploymentController.type EXTERNAL, deploymentConfiguration.strategy CANARY, "
    "deploymentConfiguration.bakeTimeInMinutes, deploymentConfiguration.alarms are not supported."
)
NO_WEIGHT = (
    "There are no capacity providers in the capacity provider strategy with a weight value greater "
    "than zero. Specify a weight value greater than zero for at least one capacity provider and "
    "try again."
)
NO_DEFAULT_WEIGHT = (
    "There are no capacity providers with a weight value greater than zero defined in the default "
    "capacity provider strategy. At least one capacity provider must have a weight value greater "
    "than zero specified. Update the cluster's default capacity provider strategy or specify a "
    "valid capacity provider strategy and try again."
)
TWO_BASES = (
    "The specified capacity provider strategy contains multiple capacity providers with a base "
    "value defined. Only one capacity provider per strategy can have a base value defined."
)
SPOT = {"capacityProvider": "FARGATE_SPOT"}
LIGHT = [
    pytest.param([{"capacityProvider": "FARGATE", "weight": 0}], id="0"),
    pytest.param([SPOT], id="unsaid"),
    pytest.param([SPOT, {"capacityProvider": "FARGATE", "base": 1}], id="base alone"),
]
BASES = [
    {"capacityProvider": "FARGATE", "base": 1, "weight": 1},
    {"capacityProvider": "FARGATE_SPOT", "base": 2, "weight": 1},
]


@pytest.fixture
def with_role(registered: Any) -> Any:
    """The client, with the definitions `web`, which has no task role, and `exec`, which has."""
    registered.register_task_definition(**EXEC)
    return registered


def refused_run(ecs: Any, **request: Any) -> tuple[str, str]:
    asked = {"taskDefinition": "web", "networkConfiguration": NETWORK, **request}
    return refusal(ecs.run_task, **asked)


def refused_service(ecs: Any, **request: Any) -> tuple[str, str]:
    asked = {"serviceName": "b", "taskDefinition": "web", "networkConfiguration": NETWORK}
    return refusal(ecs.create_service, **{**asked, "desiredCount": 0, **request})


def test_run_task_names_all_that_is_not_done(with_role: Any) -> None:
    override = {"name": "app", "resourceRequirements": [{"type": "GPU", "value": "1"}]}

    assert refused_run(
        with_role,
        taskDefinition="exec",
        enableExecuteCommand=True,
        overrides={
            "containerOverrides": [override],
            "inferenceAcceleratorOverrides": [{"deviceName": "d"}],
        },
    ) == ("UnsupportedFeatureException", RUN_TASK_UNDONE)


def test_create_service_names_all_that_is_not_done(with_role: Any) -> None:
    assert refused_service(
        with_role,
        taskDefinition="exec",
        enableExecuteCommand=True,
        loadBalancers=[{"containerName": "app", "containerPort": 80}],
        serviceConnectConfiguration={"enabled": True},
        deploymentController={"type": "EXTERNAL"},
        deploymentConfiguration={
            "strategy": "CANARY",
            "bakeTimeInMinutes": 1,
            "alarms": {"alarmNames": ["a"], "enable": True, "rollback": False},
        },
    ) == ("UnsupportedFeatureException", SERVICE_UNDONE)


def test_what_is_switched_off_is_taken(registered: Any) -> None:
    off: dict[str, Any] = {
        "serviceConnectConfiguration": {"enabled": False},
        "loadBalancers": [],
        "deploymentConfiguration": {
            "bakeTimeInMinutes": 0,
            "alarms": {"alarmNames": ["a"], "enable": False, "rollback": False},
            "earlySuccessCriteria": {"enable": False, "healthyPercent": 50},
        },
    }

    create_service(registered, desiredCount=0, enableExecuteCommand=False, **off)
    registered.update_service(service="web", **off)

    assert describe_service(registered)["deploymentConfiguration"]["bakeTimeInMinutes"] == 0


def test_exec_without_a_task_role_is_refused_in_the_words_of_aws(with_role: Any) -> None:
    create_service(with_role, desiredCount=0)

    assert refused_service(with_role, enableExecuteCommand=True) == (
        "InvalidParameterException",
        NO_ROLE.format("created"),
    )
    update = {"service": "web", "enableExecuteCommand": True}
    assert refusal(with_role.update_service, **update) == (
        "InvalidParameterException",
        NO_ROLE.format("updated"),
    )
    assert refusal(with_role.update_service, taskDefinition="exec", **update) == (
        "UnsupportedFeatureException",
        "enableExecuteCommand is not supported.",
    )


def test_versions_of_a_service_are_not_kept_consistent_and_that_is_said(registered: Any) -> None:
    def register(family: str, consistency: str) -> None:
        container = {"name": "app", "image": "busybox", "versionConsistency": consistency}
        registered.register_task_definition(
            **{**FARGATE, "family": family, "containerDefinitions": [container]}
        )

    register("pinned", "enabled")
    register("loose", "disabled")

    _, text = refused_service(registered, taskDefinition="pinned")
    assert text.startswith("versionConsistency enabled in the task definition of a service is not")
    create_service(registered, taskDefinition="loose", desiredCount=0)


@pytest.mark.parametrize("strategy", LIGHT)
def test_strategy_without_weight_is_refused(strategy: list[Any], registered: Any) -> None:
    create_service(registered, desiredCount=0)
    update = {"service": "web", "capacityProviderStrategy": strategy}

    expected = ("InvalidParameterException", NO_WEIGHT)
    assert refused_run(registered, capacityProviderStrategy=strategy) == expected
    assert refused_service(registered, capacityProviderStrategy=strategy) == expected
    assert refusal(registered.update_service, **update) == expected


def test_default_strategy_without_weight_is_refused_where_it_is_used(registered: Any) -> None:
    registered.put_cluster_capacity_providers(
        cluster="default",
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        defaultCapacityProviderStrategy=[SPOT],
    )

    expected = ("InvalidParameterException", NO_DEFAULT_WEIGHT)
    assert refused_run(registered) == expected
    assert refused_service(registered) == expected


def test_strategy_with_two_bases_is_refused(registered: Any) -> None:
    expected = ("InvalidParameterException", TWO_BASES)
    assert refused_run(registered, capacityProviderStrategy=BASES) == expected
    assert refused_service(registered, capacityProviderStrategy=BASES) == expected
    assert (
        refusal(
            registered.create_cluster,
            clusterName="two",
            capacityProviders=["FARGATE", "FARGATE_SPOT"],
            defaultCapacityProviderStrategy=BASES,
        )
        == expected
    )
