"""What CreateService and UpdateService may ask for, and the defaults. Pure.

A service is kept as two documents: the members of the Service shape, and the *template* of a
deployment, which has the members that its tasks are made of, as RunTask names them.
"""

from collections.abc import Iterator
from typing import Final

from fargate_agent.controlplane.clusters.strategies import check_strategy
from fargate_agent.controlplane.errors import invalid_parameter, unsupported_members
from fargate_agent.controlplane.services.names import SERVICE_NAME
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.unsupported import asks_for_something

NO_ROLE_FOR_EXEC: Final = (
    "The service couldn't be {done} because a valid taskRoleArn is not being used. Specify a valid "
    "task role in your task definition and try again."
)
"""Source: UpdateService, as users report it; of CreateService unverified."""
MAX_DESIRED_COUNT: Final = 5000
"""Source: Amazon ECS service quotas, "Tasks per service"."""
MAX_CLIENT_TOKEN_CHARS: Final = 36
"""Source: ECS API, CreateService.clientToken."""
MAX_GRACE_PERIOD_S: Final = 2**31 - 1
"""Source: ECS API, CreateService.healthCheckGracePeriodSeconds."""
MAX_PERCENT: Final = 200
"""Of `minimumHealthyPercent`, unverified: AWS's own limit isn't documented."""

MINIMUM_HEALTHY_PERCENT: Final = 100
MAXIMUM_PERCENT: Final = 200
"""Source: ECS API, DeploymentConfiguration, defaults of the REPLICA strategy."""

SHOWN_PLATFORM_VERSION: Final = "LATEST"

_NOT_SERVED: Final = (
    "loadBalancers",
    "serviceConnectConfiguration",
    "enableExecuteCommand",
    "vpcLatticeConfigurations",
    "gatewayConnectors",
    "monitoring",
    "role",
)
_NOT_SERVED_OF_DEPLOYMENTS: Final = (
    "bakeTimeInMinutes",
    "alarms",
    "lifecycleHooks",
    "linearConfiguration",
    "canaryConfiguration",
    "earlySuccessCriteria",
)
_ROLLED_OUT: Final = (
    "taskDefinition",
    "networkConfiguration",
    "launchType",
    "capacityProviderStrategy",
    "platformVersion",
    "volumeConfigurations",
    "serviceRegistries",
)
"""Members whose change replaces the tasks; the others concern new ones only. Source: ECS API,
UpdateService."""
_TEMPLATE: Final = (
    *_ROLLED_OUT,
    "enableExecuteCommand",
    "enableECSManagedTags",
    "propagateTags",
    "placementConstraints",
    "placementStrategy",
)
_CAPACITY: Final = ("launchType", "capacityProviderStrategy")
_SHOWN: Final = (
    "availabilityZoneRebalancing",
    "healthCheckGracePeriodSeconds",
    "networkConfiguration",
    "platformVersion",
    "volumeConfigurations",
    "serviceRegistries",
    "enableExecuteCommand",
    "enableECSManagedTags",
    "propagateTags",
    "placementConstraints",
    "placementStrategy",
)

_DEFAULTS: Final[Json] = {
    "schedulingStrategy": "REPLICA",
    "deploymentController": {"type": "ECS"},
    "enableECSManagedTags": False,
    "enableExecuteCommand": False,
    "propagateTags": "NONE",
    "platformVersion": SHOWN_PLATFORM_VERSION,
    "availabilityZoneRebalancing": "DISABLED",
    "placementConstraints": [],
    "placementStrategy": [],
}
_NETWORK: Final = {"assignPublicIp": "DISABLED"}
"""Source: ECS API, AwsVpcConfiguration.assignPublicIp, default of CreateService."""
_DEFAULT_DEPLOYMENTS: Final[Json] = {
    "deploymentCircuitBreaker": {"enable": False, "rollback": False},
    "maximumPercent": MAXIMUM_PERCENT,
    "minimumHealthyPercent": MINIMUM_HEALTHY_PERCENT,
    "strategy": "ROLLING",
    "bakeTimeInMinutes": 0,
}


def check_new(request: Json) -> None:
    """Return if a service of this kind can be made, as far as its tasks aren't concerned.

    Raises:
        ApiError: it can't. Texts are unverified where nothing else is said.
    """
    if not SERVICE_NAME.fullmatch(request["serviceName"]):
        raise invalid_parameter("serviceName must match ^[a-zA-Z0-9\\-_]{1,255}$")
    if len(request.get("clientToken", "")) > MAX_CLIENT_TOKEN_CHARS:
        raise invalid_parameter(
            f"clientToken can have at most {MAX_CLIENT_TOKEN_CHARS} characters."
        )
    if request.get("schedulingStrategy", "REPLICA") != "REPLICA":
        raise invalid_parameter(
            "The daemon scheduling strategy is not supported with FARGATE launch type."
        )
    check_change(request)
    if "taskDefinition" not in request:
        raise invalid_parameter("TaskDefinition can not be blank.")
    if "desiredCount" not in request:
        raise invalid_parameter("desiredCount is required with the REPLICA scheduling strategy.")
    check_tags(request.get("tags", []))


def check_change(request: Json) -> None:
    """Return if the members that a service can be made with, or be given later, have values.

    Raises:
        ApiError: one has a value that can't be. Texts are unverified.
    """
    if not 0 <= request.get("desiredCount", 0) <= MAX_DESIRED_COUNT:
        raise invalid_parameter(f"desiredCount must be between 0 and {MAX_DESIRED_COUNT}.")
    if not 0 <= request.get("healthCheckGracePeriodSeconds", 0) <= MAX_GRACE_PERIOD_S:
        raise invalid_parameter("healthCheckGracePeriodSeconds can not be negative.")


def check_served(request: Json, definition: Json, done: str) -> None:
    """Return if all that a request for a service asks for is done here.

    Args:
        request: of CreateService or UpdateService.
        definition: task definition of the service from now on.
        done: what would be done with the service: `created` or `updated`.

    Raises:
        ApiError: it isn't; the text names every member that asks for more.
    """
    if request.get("enableExecuteCommand") and "taskRoleArn" not in definition:
        raise invalid_parameter(NO_ROLE_FOR_EXEC.format(done=done))
    if names := list(_unsupported(request, definition)):
        raise unsupported_members(names)


def _unsupported(request: Json, definition: Json) -> Iterator[str]:
    yield from (member for member in _NOT_SERVED if asks_for_something(request.get(member)))
    if (controller := request.get("deploymentController", {}).get("type", "ECS")) != "ECS":
        yield f"deploymentController.type {controller}"
    deployments = request.get("deploymentConfiguration", {})
    if (strategy := deployments.get("strategy", "ROLLING")) != "ROLLING":
        yield f"deploymentConfiguration.strategy {strategy}"
    for member in _NOT_SERVED_OF_DEPLOYMENTS:
        if asks_for_something(deployments.get(member)):
            yield f"deploymentConfiguration.{member}"
    if "taskDefinition" in request and any(
        container.get("versionConsistency") == "enabled"
        for container in definition["containerDefinitions"]
    ):
        yield "versionConsistency enabled in the task definition of a service"


def complete(request: Json, known: Json, definition_arn: str) -> Json:
    """Return the members of the Service shape that a request leaves a service with.

    Args:
        request: of CreateService or UpdateService, checked.
        known: the members so far; empty for a new service.
        definition_arn: of the task definition that is asked for, or that there is.

    Raises:
        ApiError: the deployment configuration can't be. But for two capacities and two limits of
            100, the texts are unverified.
    """
    kept = {m: value for m, value in known.items() if m not in _CAPACITY}
    given: Json = {member: request[member] for member in _SHOWN if member in request}
    if network := given.get("networkConfiguration", {}).get("awsvpcConfiguration"):
        given["networkConfiguration"] = {"awsvpcConfiguration": {**_NETWORK, **network}}
    document: Json = {**_DEFAULTS, **kept, **given, **_plan_capacity(request, known)}
    document["taskDefinition"] = definition_arn
    for member in ("volumeConfigurations", "serviceRegistries"):
        if not document.get(member):  # an empty list takes them away
            document.pop(member, None)
    document["deploymentConfiguration"] = _plan_deployments(
        request.get("deploymentConfiguration", {}),
        known.get("deploymentConfiguration", _DEFAULT_DEPLOYMENTS),
    )
    return document


def render_template(document: Json) -> Json:
    """Return what the tasks of a deployment are made of."""
    return {member: document[member] for member in _TEMPLATE if member in document}


def replaces_tasks(template: Json, other: Json) -> bool:
    """Whether a deployment is needed to come from one template to the other."""
    return any(template.get(member) != other.get(member) for member in _ROLLED_OUT)


def _plan_capacity(request: Json, known: Json) -> Json:
    """Fargate is the launch type, whether it is named or not, unless there is a strategy."""
    if request.get("launchType") and request.get("capacityProviderStrategy"):
        raise invalid_parameter(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    check_strategy(request.get("capacityProviderStrategy", []))
    strategy = request.get("capacityProviderStrategy", known.get("capacityProviderStrategy"))
    if strategy:
        return {"capacityProviderStrategy": strategy}
    return {"launchType": request.get("launchType", "FARGATE")}


def _plan_deployments(wanted: Json, known: Json) -> Json:
    planned = {
        **known,
        **{m: value for m, value in wanted.items() if m not in _NOT_SERVED_OF_DEPLOYMENTS},
    }
    _check_percents(planned["minimumHealthyPercent"], planned["maximumPercent"])
    _check_breaker(planned["deploymentCircuitBreaker"])
    return planned


def _check_percents(minimum: int, maximum: int) -> None:
    if not 0 <= minimum <= MAX_PERCENT or maximum < 1:
        raise invalid_parameter("The deployment configuration's percentages are out of range.")
    if minimum == maximum == MINIMUM_HEALTHY_PERCENT:
        raise invalid_parameter(
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block "
            "deployments."
        )
    # less than all of the desired tasks could never be steady
    if maximum < max(minimum, MINIMUM_HEALTHY_PERCENT):
        raise invalid_parameter(
            "maximumPercent must be at least 100 and at least minimumHealthyPercent."
        )


def _check_breaker(breaker: Json) -> None:
    wanted = breaker.get("thresholdConfiguration")
    if wanted is not None and wanted["value"] < 1:
        raise invalid_parameter("The threshold's value must be at least 1.")
