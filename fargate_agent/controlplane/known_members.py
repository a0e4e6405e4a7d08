"""The members that the large shapes of ECS had when each of them got its verdict.

A newer botocore has further members. They are unknown here, so that none is taken and not done.
"""

from collections.abc import Mapping
from typing import Final

_MEMBERS: Final = """
AdvancedConfiguration: alternateTargetGroupArn productionListenerRule testListenerRule roleArn
AwsVpcConfiguration: subnets securityGroups assignPublicIp
CanaryConfiguration: canaryPercent canaryBakeTimeInMinutes
CapacityProviderStrategyItem: capacityProvider weight base
ContainerDefinition: name image repositoryCredentials cpu memory memoryReservation links
    portMappings essential restartPolicy entryPoint command environment environmentFiles
    mountPoints volumesFrom linuxParameters secrets dependsOn startTimeout stopTimeout
    versionConsistency hostname user workingDirectory disableNetworking privileged
    readonlyRootFilesystem dnsServers dnsSearchDomains extraHosts dockerSecurityOptions
    interactive pseudoTerminal dockerLabels ulimits logConfiguration healthCheck systemControls
    resourceRequirements firelensConfiguration credentialSpecs
ContainerDependency: containerName condition
ContainerOverride: name command environment environmentFiles cpu memory memoryReservation
    resourceRequirements
ContainerRestartPolicy: enabled ignoredExitCodes restartAttemptPeriod
CreateServiceRequest: cluster serviceName taskDefinition availabilityZoneRebalancing loadBalancers
    serviceRegistries desiredCount clientToken launchType capacityProviderStrategy platformVersion
    role deploymentConfiguration placementConstraints placementStrategy networkConfiguration
    healthCheckGracePeriodSeconds schedulingStrategy deploymentController tags
    enableECSManagedTags propagateTags enableExecuteCommand serviceConnectConfiguration
    volumeConfigurations vpcLatticeConfigurations gatewayConnectors monitoring
DeploymentAlarms: alarmNames rollback enable
DeploymentCircuitBreaker: enable rollback resetOnHealthyTask thresholdConfiguration
DeploymentConfiguration: deploymentCircuitBreaker maximumPercent minimumHealthyPercent alarms
    strategy bakeTimeInMinutes lifecycleHooks linearConfiguration canaryConfiguration
    earlySuccessCriteria
DeploymentController: type
DeploymentEarlySuccessCriteria: enable healthyPercent sourceServiceRevisionCleanup
DeploymentLifecycleHook: targetType hookTargetArn roleArn lifecycleStages hookDetails
    timeoutConfiguration
DeploymentLifecycleHookTimeoutConfiguration: timeoutInMinutes action
Device: hostPath containerPath permissions
DockerVolumeConfiguration: scope autoprovision driver driverOpts labels
EBSTagSpecification: resourceType tags propagateTags
EFSAuthorizationConfig: accessPointId iam
EFSVolumeConfiguration: fileSystemId rootDirectory transitEncryption transitEncryptionPort
    authorizationConfig
EnvironmentFile: value type
EphemeralStorage: sizeInGiB
FSxWindowsFileServerAuthorizationConfig: credentialsParameter domain
FSxWindowsFileServerVolumeConfiguration: fileSystemId rootDirectory authorizationConfig
FirelensConfiguration: type options
GatewayConnector: portName healthCheck filters deregistrationDelay
GatewayConnectorDeregistrationDelay: timeoutSeconds
GatewayConnectorFilters: accessTypes
GatewayConnectorHealthCheck: healthCheckProtocol healthCheckPort healthCheckPath
    healthCheckTimeoutSeconds healthCheckIntervalSeconds healthyThresholdCount
    unhealthyThresholdCount matcher
GatewayConnectorHealthCheckMatcher: httpCode grpcCode
HealthCheck: command interval timeout retries startPeriod
HookDetails:
HostEntry: hostname ipAddress
HostVolumeProperties: sourcePath
InferenceAccelerator: deviceName deviceType
InferenceAcceleratorOverride: deviceName deviceType
KernelCapabilities: add drop
KeyValuePair: name value
LinearConfiguration: stepPercent stepBakeTimeInMinutes
LinuxParameters: capabilities devices initProcessEnabled sharedMemorySize tmpfs maxSwap swappiness
LoadBalancer: targetGroupArn loadBalancerName containerName containerPort advancedConfiguration
LogConfiguration: logDriver options secretOptions
MetricConfiguration: metricNames resolutionSeconds
MonitoringConfiguration: metricConfigurations
MountPoint: sourceVolume containerPath readOnly
NetworkConfiguration: awsvpcConfiguration
NvidiaMpsAllocation: memory maxComputePercent
PlacementConstraint: type expression
PlacementStrategy: type field
PortMapping: containerPort hostPort protocol name appProtocol containerPortRange
ProxyConfiguration: type containerName properties
RegisterTaskDefinitionRequest: family taskRoleArn executionRoleArn networkMode
    containerDefinitions volumes placementConstraints requiresCompatibilities cpu memory tags
    pidMode ipcMode proxyConfiguration inferenceAccelerators ephemeralStorage runtimePlatform
    enableFaultInjection trustedExecutionConfiguration
RepositoryCredentials: credentialsParameter
ResourceRequirement: value type sharingStrategy
RunTaskRequest: capacityProviderStrategy cluster count enableECSManagedTags enableExecuteCommand
    group launchType networkConfiguration overrides placementConstraints placementStrategy
    platformVersion propagateTags referenceId startedBy tags taskDefinition clientToken
    volumeConfigurations
RuntimePlatform: cpuArchitecture operatingSystemFamily
S3FilesVolumeConfiguration: fileSystemArn rootDirectory transitEncryptionPort accessPointArn
Secret: name valueFrom
ServiceConnectAccessLogConfiguration: format includeQueryParameters
ServiceConnectClientAlias: port dnsName testTrafficRules
ServiceConnectConfiguration: enabled namespace services logConfiguration accessLogConfiguration
    containerConfigurations
ServiceConnectContainerConfiguration: logLevel
ServiceConnectService: portName discoveryName clientAliases ingressPortOverride timeout tls
ServiceConnectTestTrafficHeaderMatchRules: exact
ServiceConnectTestTrafficHeaderRules: name value
ServiceConnectTestTrafficRules: header
ServiceConnectTlsCertificateAuthority: awsPcaAuthorityArn
ServiceConnectTlsConfiguration: issuerCertificateAuthority kmsKey roleArn
ServiceManagedEBSVolumeConfiguration: encrypted kmsKeyId volumeType sizeInGiB snapshotId
    volumeInitializationRate iops throughput tagSpecifications roleArn filesystemType
ServiceRegistry: registryArn port containerName containerPort
ServiceVolumeConfiguration: name managedEBSVolume
SharingStrategy: nvidiaMps
SystemControl: namespace value
Tag: key value
TaskDefinitionPlacementConstraint: type expression
TaskManagedEBSVolumeConfiguration: encrypted kmsKeyId volumeType sizeInGiB snapshotId
    volumeInitializationRate iops throughput tagSpecifications roleArn terminationPolicy
    filesystemType
TaskManagedEBSVolumeTerminationPolicy: deleteOnTermination
TaskOverride: containerOverrides cpu inferenceAcceleratorOverrides executionRoleArn memory
    taskRoleArn ephemeralStorage
TaskVolumeConfiguration: name managedEBSVolume
ThresholdConfiguration: type value
TimeoutConfiguration: idleTimeoutSeconds perRequestTimeoutSeconds
Tmpfs: containerPath size mountOptions
TrustedExecutionConfiguration: isolationMode attestationPolicy
Ulimit: name softLimit hardLimit
UpdateServiceRequest: cluster service desiredCount taskDefinition capacityProviderStrategy
    deploymentConfiguration availabilityZoneRebalancing networkConfiguration placementConstraints
    placementStrategy platformVersion forceNewDeployment healthCheckGracePeriodSeconds
    deploymentController enableExecuteCommand enableECSManagedTags loadBalancers propagateTags
    serviceRegistries serviceConnectConfiguration volumeConfigurations vpcLatticeConfigurations
    gatewayConnectors monitoring
Volume: name host dockerVolumeConfiguration efsVolumeConfiguration s3filesVolumeConfiguration
    fsxWindowsFileServerVolumeConfiguration configuredAtLaunch
VolumeFrom: sourceContainer readOnly
VpcLatticeAdvancedConfiguration: alternateTargetGroupArn productionListenerRule testListenerRule
VpcLatticeConfiguration: roleArn targetGroupArn portName advancedConfiguration
"""
"""Source: botocore 1.44.8, service model of ECS: the shapes of RegisterTaskDefinition, RunTask,
CreateService and UpdateService."""


def parse_members(text: str) -> Mapping[str, frozenset[str]]:
    """Return the members of shapes, from lines `Shape: member …` of which some go on indented."""
    lines = text.replace("\n    ", " ").strip().splitlines()
    parts = (line.partition(":") for line in lines)
    return {shape: frozenset(members.split()) for shape, _, members in parts}


KNOWN_MEMBERS: Final = parse_members(_MEMBERS)
"""By the name of the shape."""
