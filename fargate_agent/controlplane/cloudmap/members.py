"""The members that the shapes of Cloud Map had when each of them got its verdict.

A newer botocore has further members. They are unknown here, so that none is taken and not done.
"""

from typing import Final

from fargate_agent.controlplane.known_members import parse_members

MEMBERS: Final = parse_members("""
CreateHttpNamespaceRequest: Name CreatorRequestId Description Tags
CreatePrivateDnsNamespaceRequest: Name CreatorRequestId Description Vpc Tags Properties
CreateServiceRequest: Name NamespaceId CreatorRequestId Description DnsConfig HealthCheckConfig
    HealthCheckCustomConfig Tags Type
DeleteNamespaceRequest: Id
DeleteServiceRequest: Id
DeregisterInstanceRequest: ServiceId InstanceId
DiscoverInstancesRequest: NamespaceName ServiceName MaxResults QueryParameters OptionalParameters
    HealthStatus OwnerAccount
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
"""Source: botocore 1.44.8, service model of Cloud Map: the shapes of requests."""
