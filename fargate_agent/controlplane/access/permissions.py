"""What each operation acts on, which policies speak of: resources, and values of condition keys.

All is read from the request alone, so that nothing is looked up for a caller who may not. A
reference is resolved here as the operation resolves it: otherwise a policy would judge one thing
and the operation change another. Where ECS would ask for more than one permission only the first
counts: `ecs:TagResource` isn't asked for tags of what is created. Which roles are passed doesn't
follow from the request alone: `roles.passing` asks for `iam:PassRole`.

Source: AWS service authorization reference, "Actions, resources, and condition keys for Amazon
Elastic Container Service".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.access.policy import ANY_REVISION, Context, Decision
from fargate_agent.controlplane.agents.served import find_served
from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.names import Arns, wrong_cluster
from fargate_agent.controlplane.validate import Json

_IN_CLUSTERS: Final = ("container-instance", "service", "task")
_SERVICE_PARTS: Final = 3
"""Cluster, service, and the id of a deployment or revision."""


@dataclass(frozen=True, slots=True)
class Target:
    """One resource that an operation acts on, and under which conditions."""

    resource: str
    """Its ARN; `*` where there is none in particular."""
    context: Context = field(default_factory=dict)


Targets = list[Target]
"""The caller needs permission for each."""

ANYTHING: Final[Targets] = [Target("*")]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the right shape, and what its references mean."""

    request: Json
    arns: Arns
    default_cluster: str

    @property
    def cluster(self) -> str:
        """Name of the cluster that is meant."""
        return self.arns.parse_cluster(self.request.get("cluster") or self.default_cluster)

    def cluster_arn(self, reference: str) -> str:
        """Return the ARN of a cluster; that of another account or region stays what it is."""
        name = self.arns.parse_cluster(reference)
        return name if name.startswith("arn:") else self.arns.cluster(name)

    def in_cluster(self, **more: str) -> Context:
        """Return the condition values of what happens in the cluster."""
        return {"ecs:cluster": self.cluster_arn(self.cluster), **more}

    def member_arn(self, kind: str, reference: str) -> str:
        """Return the ARN of what is in the cluster, given as id, name, or ARN (old or new).

        Raises:
            ApiError: it is the ARN of what is in another cluster.
        """
        name = reference
        if reference.startswith("arn:"):
            _, _, path = reference.partition(f":{kind}/")
            named, _, name = path.rpartition("/")
            if named not in {"", self.cluster}:
                raise wrong_cluster(named, self.cluster)
        return self._arn(f"{kind}/{self.cluster}/{name}")

    def definition_arn(self, reference: str) -> str:
        """Return the ARN of a task definition; without a revision it may become any."""
        name = self.arns.parse_task_definition(reference)
        if name is None:
            return reference if reference.startswith("arn:") else self.family_arn(reference)
        if name.revision is None:
            return self.family_arn(name.family)
        return self.arns.task_definition(name.family, name.revision)

    def family_arn(self, family: str) -> str:
        """Return the ARN of all revisions of a family."""
        return self._arn(f"task-definition/{family}{ANY_REVISION}")

    def capacity_provider_arn(self, reference: str) -> str:
        """Return the ARN of a capacity provider, given by name or ARN."""
        is_arn = reference.startswith("arn:")
        return reference if is_arn else self._arn(f"capacity-provider/{reference}")

    def _arn(self, resource: str) -> str:
        return f"arn:aws:ecs:{self.arns.region}:{self.arns.account}:{resource}"


def find_targets(operation: str, asked: Asked) -> Targets:
    """Return what a call acts on. The operation must be one of `TARGETS`.

    Raises:
        ApiError: a reference can't be one to what the operation acts on.
    """
    return TARGETS[operation](asked)


def check_permission(caller: Caller, action: str, targets: Targets, arns: Arns) -> None:
    """Return if the caller may do `action`, e.g. `ecs:RunTask`, to each of the targets.

    Raises:
        ApiError: it may not. Source of the texts: IAM user guide, "Troubleshoot access denied error
            messages".
    """
    for target in targets:
        context = {**target.context, "aws:username": caller.principal}
        decision = caller.policy.decide(action, target.resource, context)
        if decision is Decision.ALLOWED:
            continue
        why = (
            "with an explicit deny in an identity-based policy"
            if decision is Decision.DENIED
            else f"because no identity-based policy allows the {action} action"
        )
        raise ApiError(
            "AccessDeniedException",
            f"User: {arns.user(caller.principal)} is not authorized to perform: {action} "
            f"on resource: {target.resource} {why}",
        )


def _anything(_: Asked) -> Targets:
    return ANYTHING


def _anything_in_cluster(asked: Asked) -> Targets:
    return [Target("*", asked.in_cluster())]


def _cluster(asked: Asked) -> Targets:
    return [Target(asked.cluster_arn(asked.cluster))]


def _clusters_served(asked: Asked) -> Targets:
    """An agent needs permission for each cluster whose tasks it wants, beside its own."""
    served = find_served(asked.request) or []
    return [*_cluster(asked), *(Target(asked.cluster_arn(name)) for name in served)]


def _clusters(asked: Asked) -> Targets:
    named = asked.request.get("clusters") or [asked.default_cluster]
    return [Target(asked.cluster_arn(reference)) for reference in named]


def _member(kind: str, member: str) -> Callable[[Asked], Targets]:
    """Of operations on what is in a cluster, named by one string or by a list of them."""

    def find(asked: Asked) -> Targets:
        found = asked.request.get(member) or []
        references = [found] if isinstance(found, str) else found
        context = asked.in_cluster()
        if not references:  # all that are there, or a request that the operation refuses
            references = ["*"]
        return [Target(asked.member_arn(kind, reference), context) for reference in references]

    return find


def _new_service(asked: Asked) -> Targets:
    name = asked.request["serviceName"]
    return [Target(asked.member_arn("service", name), asked.in_cluster())]


def _attributes(asked: Asked) -> Targets:
    names = [attribute.get("targetId") or "*" for attribute in asked.request["attributes"]]
    context = asked.in_cluster()
    return [Target(asked.member_arn("container-instance", name), context) for name in names]


def _tasks_listed(asked: Asked) -> Targets:
    if reference := asked.request.get("containerInstance"):
        return [Target(asked.member_arn("container-instance", reference), asked.in_cluster())]
    return _anything_in_cluster(asked)


def _task_run(asked: Asked) -> Targets:
    definition = asked.definition_arn(asked.request["taskDefinition"])
    return [Target(definition, asked.in_cluster())]


def _task_started(asked: Asked) -> Targets:
    definition = asked.definition_arn(asked.request["taskDefinition"])
    instances = [
        asked.member_arn("container-instance", reference)
        for reference in asked.request["containerInstances"]
    ]
    if not instances:
        return [Target(definition, asked.in_cluster())]
    return [
        Target(definition, asked.in_cluster(**{"ecs:container-instances": instance}))
        for instance in instances
    ]


def _family(asked: Asked) -> Targets:
    return [Target(asked.family_arn(asked.request["family"]))]


def _definitions(asked: Asked) -> Targets:
    references = asked.request["taskDefinitions"]
    return [Target(asked.definition_arn(reference)) for reference in references] or ANYTHING


def _capacity_providers(asked: Asked) -> Targets:
    references = asked.request.get("capacityProviders") or ["*"]
    return [Target(asked.capacity_provider_arn(reference)) for reference in references]


def _of_service(member: str) -> Callable[[Asked], Targets]:
    """Of operations on `service-deployment` and `service-revision`, which are given by ARN."""

    def find(asked: Asked) -> Targets:
        found = asked.request[member]
        return [
            Target(arn, _service_context(asked, arn))
            for arn in ([found] if isinstance(found, str) else found)
        ] or ANYTHING

    return find


def _service_context(asked: Asked, arn: str) -> Context:
    parts = arn.partition("/")[2].split("/")
    if len(parts) != _SERVICE_PARTS:
        return {}
    cluster, service, _ = parts
    within = Asked({"cluster": cluster}, asked.arns, asked.default_cluster)
    return within.in_cluster(**{"ecs:service": within.member_arn("service", service)})


def _tagged(asked: Asked) -> Targets:
    arn = asked.request["resourceArn"]
    _, _, path = arn.rpartition(":")
    if path.startswith(tuple(f"{kind}/" for kind in _IN_CLUSTERS)) and path.count("/") != 2:
        # an old ARN doesn't say the cluster, of which policies speak
        raise invalid_parameter("Long arn format must be used for tagging operations")
    return [Target(arn)]


_task = _member("task", "task")
_tasks = _member("task", "tasks")
_service = _member("service", "service")
_services = _member("service", "services")
_instance = _member("container-instance", "containerInstance")
_instances = _member("container-instance", "containerInstances")

TARGETS: Final[Mapping[str, Callable[[Asked], Targets]]] = {
    "CreateCluster": _anything,
    "DeleteCluster": _cluster,
    "DescribeClusters": _clusters,
    "ListClusters": _anything,
    "PutClusterCapacityProviders": _cluster,
    "UpdateCluster": _cluster,
    "UpdateClusterSettings": _cluster,
    "DeleteTaskDefinitions": _definitions,
    "DeregisterTaskDefinition": _anything,
    "DescribeTaskDefinition": _anything,
    "ListTaskDefinitionFamilies": _anything,
    "ListTaskDefinitions": _anything,
    "RegisterTaskDefinition": _family,
    "DescribeTasks": _tasks,
    "ExecuteCommand": _task,
    "GetTaskProtection": _tasks,
    "ListTasks": _tasks_listed,
    "RunTask": _task_run,
    "StartTask": _task_started,
    "StopTask": _task,
    "UpdateTaskProtection": _tasks,
    "CreateService": _new_service,
    "DeleteService": _service,
    "DescribeServiceDeployments": _of_service("serviceDeploymentArns"),
    "DescribeServiceRevisions": _of_service("serviceRevisionArns"),
    "DescribeServices": _services,
    "ListServiceDeployments": _service,
    "ListServices": _anything_in_cluster,
    "ListServicesByNamespace": _anything,
    "StopServiceDeployment": _of_service("serviceDeploymentArn"),
    "ContinueServiceDeployment": _of_service("serviceDeploymentArn"),
    "UpdateService": _service,
    "ListTagsForResource": _tagged,
    "TagResource": _tagged,
    "UntagResource": _tagged,
    "DeleteAccountSetting": _anything,
    "ListAccountSettings": _anything,
    "PutAccountSetting": _anything,
    "PutAccountSettingDefault": _anything,
    "DescribeCapacityProviders": _capacity_providers,
    "DeleteAttributes": _attributes,
    "DeregisterContainerInstance": _cluster,
    "DescribeContainerInstances": _instances,
    "DiscoverPollEndpoint": _anything,
    "ListAttributes": _cluster,
    "ListContainerInstances": _cluster,
    "PutAttributes": _attributes,
    "RegisterContainerInstance": _clusters_served,
    "SubmitAttachmentStateChanges": _cluster,
    "SubmitContainerStateChange": _cluster,
    "SubmitTaskStateChange": _cluster,
    "UpdateContainerInstancesState": _instances,
    # the agent's websocket, which is no operation of the service model
    "Poll": _instance,
}
"""A row for every operation that is supported, or will be."""
