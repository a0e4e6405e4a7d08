"""Cloud Map's own service model, as botocore ships it, and which of its members have a verdict."""

from functools import cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import ServiceModel

from fargate_agent.controlplane.cloudmap.refusals import invalid_input
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.known_members import parse_members
from fargate_agent.controlplane.validate import Json, check_shape, load_request

TARGET_PREFIX: Final = "Route53AutoNaming_v20170314"

_MEMBERS: Final = parse_members("""
CreateHttpNamespaceRequest: Name CreatorRequestId Description Tags
CreatePrivateDnsNamespaceRequest: Name CreatorRequestId Description Vpc Tags Properties
CreatePublicDnsNamespaceRequest: Name CreatorRequestId Description Tags Properties
CreateServiceRequest: Name NamespaceId CreatorRequestId Description DnsConfig HealthCheckConfig
    HealthCheckCustomConfig Tags Type
DeleteNamespaceRequest: Id
DeleteServiceRequest: Id
DeregisterInstanceRequest: ServiceId InstanceId
DiscoverInstancesRequest: NamespaceName ServiceName MaxResults QueryParameters OptionalParameters
    HealthStatus OwnerAccount
DiscoverInstancesRevisionRequest: NamespaceName ServiceName OwnerAccount
DnsConfig: NamespaceId RoutingPolicy DnsRecords
DnsConfigChange: DnsRecords
DnsRecord: Type TTL
GetInstanceRequest: ServiceId InstanceId
GetInstancesHealthStatusRequest: ServiceId Instances MaxResults NextToken
GetNamespaceRequest: Id
GetOperationRequest: OperationId OwnerAccount
GetServiceRequest: Id
HealthCheckConfig: Type ResourcePath FailureThreshold
HealthCheckCustomConfig: FailureThreshold
HttpNamespaceChange: Description
ListInstancesRequest: ServiceId NextToken MaxResults
ListNamespacesRequest: NextToken MaxResults Filters
ListOperationsRequest: NextToken MaxResults Filters
ListServicesRequest: NextToken MaxResults Filters
ListTagsForResourceRequest: ResourceARN
NamespaceFilter: Name Values Condition
OperationFilter: Name Values Condition
PrivateDnsNamespaceChange: Description Properties
PrivateDnsNamespaceProperties: DnsProperties
PrivateDnsNamespacePropertiesChange: DnsProperties
PrivateDnsPropertiesMutable: SOA
PrivateDnsPropertiesMutableChange: SOA
RegisterInstanceRequest: ServiceId InstanceId CreatorRequestId Attributes
SOA: TTL
SOAChange: TTL
ServiceChange: Description DnsConfig HealthCheckConfig
ServiceFilter: Name Values Condition
Tag: Key Value
TagResourceRequest: ResourceARN Tags
UntagResourceRequest: ResourceARN TagKeys
UpdateHttpNamespaceRequest: Id UpdaterRequestId Namespace
UpdateInstanceCustomHealthStatusRequest: ServiceId InstanceId Status
UpdatePrivateDnsNamespaceRequest: Id UpdaterRequestId Namespace
UpdateServiceRequest: Id Service
""")
"""Source: botocore 1.44.8, service model of Cloud Map. A newer one's members are unknown here."""


@cache
def service_model() -> Any:  # noqa: ANN401 - botocore ships no types
    """Return Cloud Map's service model. The first call blocks, for some milliseconds."""
    return ServiceModel(Loader().load_service_model("servicediscovery", "service-2"))


def parse_request(operation: str, body: bytes) -> Json:
    """Read the body of a request, as `validate.parse_request` does.

    Raises:
        ApiError: it isn't of the shape that Cloud Map's model has.
    """
    shape = service_model().operation_model(operation).input_shape
    try:
        checked: Json = check_shape(load_request(body), shape, "", _MEMBERS)
    except ApiError as error:
        raise as_cloud_map_says(error) from None
    return checked


def as_cloud_map_says(error: ApiError) -> ApiError:
    """Return an error by the name that Cloud Map has for it."""
    is_ecs = error.kind == "InvalidParameterException"
    return invalid_input(error.message) if is_ecs else error
