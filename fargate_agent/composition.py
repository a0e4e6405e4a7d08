"""The drivers of an agent, each named once: made of its settings, opened and closed together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.containerd.client import Containerd
from fargate_agent.credentials.audit import Audit
from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import Driver, Drivers, EniDriver, VolumeDriver
from fargate_agent.egress.session import Egress
from fargate_agent.findings import Findings
from fargate_agent.image.admission import Policy, Requirement
from fargate_agent.image.collector import CleanupSettings, ImageCollector
from fargate_agent.image.disk import ImageDisk
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.registry.ecr import EcrPasswords
from fargate_agent.image.registry.hosts import OwnSettings
from fargate_agent.image.registry.kept_logins import KeptLogins
from fargate_agent.image.store import ContainerdImageStore, PullBehavior, PullSettings
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.logdriver.desk import LoggerDesk
from fargate_agent.network.cni.cache import DIRECTORY as CNI_DIRECTORY
from fargate_agent.network.cni.eni import CniEni, CniSettings
from fargate_agent.network.dns import read_nameservers, render_etc_files
from fargate_agent.network.faults.injector import KernelFaults
from fargate_agent.network.firewall import memory
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.flow_logs.flow_logs import FlowLogs, LoggedFirewall
from fargate_agent.network.forwarding import FORWARDING_FILE, Forwarding
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.names import name_instance, ours_prefix
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.nic import NicEni
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.veth import VethEni
from fargate_agent.network.vlan import VlanEni
from fargate_agent.plan import ContainerPlan, Site, TaskPlan
from fargate_agent.preconditions import find_logger_user, find_runtime
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.logger_processes import find_logger
from fargate_agent.runtime.runc import RuncRuntime, RuncSettings
from fargate_agent.secrets.fetched import FetchFiles, FetchSecrets
from fargate_agent.secrets.file_reader import EnvFileReader
from fargate_agent.secrets.local_source import LocalSource
from fargate_agent.secrets.local_store import LocalSecrets
from fargate_agent.secrets.reader import SecretReader
from fargate_agent.secrets.store import TaskSecrets
from fargate_agent.secrets.tries import SecretSettings
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_network import parse_host_port
from fargate_agent.task.images import find_image_users
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.control_plane import Calls
from fargate_agent.tmds.handlers import Sources
from fargate_agent.tmds.limits import parse_rate
from fargate_agent.tmds.sampling import Sampler
from fargate_agent.tmds.server import TaskMetadata
from fargate_agent.tmds.storage import StorageMeter
from fargate_agent.volumes.ebs import EbsVolumes
from fargate_agent.volumes.efs import EfsVolumes
from fargate_agent.volumes.ephemeral import EphemeralSettings, EphemeralVolumes
from fargate_agent.volumes.guard import DiskGuard
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.volumes.persistent import PersistentVolumes
from fargate_agent.volumes.room import Room
from fargate_agent.volumes.scratch import ScratchVolumes
from fargate_agent.vpc import memory as vpc_memory
from fargate_agent.vpc.services import HostVpcServices
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.volume_kinds import VolumeKind

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 5.0
"""How long one driver may take to close what it holds. The end of the process closes the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What drivers and services of one agent have in common."""

    settings: AgentSettings
    site: Site
    room: Room
    containerd: Containerd
    http: aiohttp.ClientSession
    """For the agent's own requests, which go through no task's network."""
    calls: Calls
    """What a task asks the control plane through its metadata endpoint."""
    findings: Findings
    flow_logs: FlowLogs
    cgroups: CgroupDrivers
    image_locks: KeyedLocks
    """What is done to one image at a time."""
    roles: Roles
    audit: Audit


@asynccontextmanager
async def open_drivers(drivers: Drivers) -> AsyncIterator[None]:
    """Open all drivers, and close them after the body, the last one first."""
    async with AsyncExitStack() as stack:
        for driver in drivers:
            await stack.enter_async_context(_closing_in_time(driver))
        yield


@asynccontextmanager
async def _closing_in_time(driver: Driver) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(driver)
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await stack.aclose()
            except TimeoutError:
                log.warning("%s is not closed after %g s", type(driver).__name__, CLOSE_TIMEOUT_S)


def make_netns(settings: AgentSettings, has_tasks: Callable[[], bool]) -> KernelNetns:
    """Make the driver of network namespaces. `has_tasks` says whether tasks may still need one."""
    return KernelNetns(
        name_instance(settings.state_dir), settings.netns_dir, has_tasks, settings.eni_ifname
    )


def make_firewall(
    settings: AgentSettings, findings: Findings, log_group: int | None = None
) -> HostFirewall:
    """Make what filters the packets of tasks. Touches nothing."""
    return HostFirewall(
        name_instance(settings.state_dir),
        settings.state_dir / memory.FILE,
        FirewallSettings(
            host_ports=tuple(parse_host_port(text) for text in settings.host_ports),
            host_reaches_tasks=settings.host_reaches_tasks,
            max_tracked_flows=settings.max_tracked_flows,
            log_group=log_group,
        ),
        findings,
    )


def make_enis(
    prepared: PreparedEnis,
    firewall: HostFirewall | LoggedFirewall,
    state_dir: Path,
    netns_dir: Path,
    findings: Findings,
    cni: CniSettings | None = None,
) -> Mapping[EniKind, EniDriver]:
    """Make the driver of each kind of ENI; `prepared` is what comes with network namespaces."""
    forwarding = Forwarding(state_dir / FORWARDING_FILE, ours_prefix(prepared.instance))
    return {
        EniKind.VETH: VethEni(prepared, firewall, forwarding, findings),
        EniKind.MACVLAN: MacvlanEni(prepared, firewall),
        EniKind.NIC: NicEni(prepared, firewall, netns_dir, findings),
        EniKind.VLAN: VlanEni(prepared, firewall),
        EniKind.CNI: CniEni(prepared, firewall, state_dir / CNI_DIRECTORY, cni),
    }


def make_cni_settings(settings: AgentSettings) -> CniSettings:
    """Return what the settings say of CNI plugins."""
    return CniSettings(conf_dir=settings.cni_conf_dir, bin_dirs=settings.cni_bin_dirs)


def make_volumes(
    settings: AgentSettings, site: Site, egress: Egress, room: Room
) -> Mapping[VolumeKind, VolumeDriver]:
    """Make the drivers of volumes, by kind. Touches nothing."""
    return {
        VolumeKind.SCRATCH: ScratchVolumes(),
        VolumeKind.EFS: EfsVolumes(site.tasks_dir, egress.resolve, socket_in_netns),
        VolumeKind.EBS: EbsVolumes(settings.state_dir / "ebs", settings.ebs_snapshots, room),
        VolumeKind.PERSISTENT: PersistentVolumes(),
        VolumeKind.HOST: HostVolumes(site.host_paths),
    }


def make_storage(
    settings: AgentSettings, site: Site, room: Room, findings: Findings
) -> EphemeralVolumes:
    """Make the driver of ephemeral volumes. Touches nothing."""
    limits = EphemeralSettings(
        room=room,
        require_limit=settings.require_ephemeral_storage_limit,
    )
    return EphemeralVolumes(site.tasks_dir, limits, findings.note)


def make_room(settings: AgentSettings, site: Site) -> Room:
    """Make what knows how much room there is for volumes. Touches nothing."""
    return Room(site.tasks_dir, settings.ephemeral_storage, settings.ephemeral_storage_margin_mib)


def make_disk_guard(shared: Shared, supervisor: Supervisor) -> DiskGuard:
    """Make what ends a task before the disk of this machine is full."""

    def find_running() -> frozenset[str]:
        return frozenset(run.plan.id for run in supervisor.runs() if not run.ended.is_set())

    return DiskGuard(
        shared.room,
        f"the disk of {shared.settings.state_dir}",
        find_running,
    )


def make_drivers(shared: Shared, supervisor: Supervisor) -> Drivers:
    """Make the drivers of an agent; `supervisor` knows the tasks that they serve.

    Nothing is asked of containerd or the kernel. Blocks, for the database of users.

    Raises:
        AgentError: the user of loggers doesn't exist, or the OCI runtime.
    """
    settings, containerd = shared.settings, shared.containerd
    user = find_logger_user(settings.logger_user)
    netns = make_netns(settings, supervisor.has_tasks)
    firewall = make_firewall(settings, shared.findings, shared.flow_logs.log_group)
    runtime = RuncRuntime(
        containerd,
        RuncSettings(
            snapshotter=settings.snapshotter,
            runc_root=settings.runc_root,
            oci_runtime=find_runtime(settings),
            create_timeout_s=settings.container_create_timeout_s,
            start_timeout_s=settings.container_start_timeout_s,
            pids_limit=settings.container_pids_limit,
            logger_user=user,
        ),
        shared.cgroups,
        render_files=render_etc_files,
        note=shared.findings.note,
    )
    egress = Egress(socket_in_netns)
    aws = AwsSite(region=settings.region, endpoint_url=settings.aws_endpoint_url)
    roles = shared.roles
    fetch, fetch_files = _make_sources(settings, roles, aws, egress)
    secrets = TaskSecrets(fetch, roles, runtime.exists, fetch_files)
    storage = make_storage(settings, shared.site, shared.room, shared.findings)
    return Drivers(
        runtime=runtime,
        storage=storage,
        netns=netns,
        security_groups=firewall,
        enis=make_enis(
            netns.prepared,
            LoggedFirewall(firewall, shared.flow_logs),
            settings.state_dir,
            settings.netns_dir,
            shared.findings,
            make_cni_settings(settings),
        ),
        vpc=HostVpcServices(netns.metadata, settings.state_dir / vpc_memory.FILE, read_nameservers),
        metadata=TaskMetadata(
            Sources(
                find_task=supervisor.find,
                sampler=Sampler(runtime.usage, read_link_stats),
                storage=StorageMeter(storage.usage),
                confidential=Confidential(shared.roles, shared.audit),
                calls=shared.calls,
                faults=KernelFaults(shared.findings),
                snapshotter=settings.snapshotter,
                limit=parse_rate(settings.task_metadata_rps_limit),
            ),
            bind_listener=netns.metadata.bind,
        ),
        images=ContainerdImageStore(
            containerd,
            make_pull_settings(settings),
            egress,
            shared.image_locks,
            ecr=None if settings.is_local else EcrPasswords(aws, roles.keys),
            collector=_make_collector(shared, supervisor),
        ),
        logs=make_log_drivers(settings, user),
        secrets=secrets,
        volumes=make_volumes(settings, shared.site, egress, shared.room),
    )


def _make_policies(settings: AgentSettings) -> tuple[Policy, ...]:
    return tuple(
        Policy(
            prefix=prefix,
            require=Requirement(policy.require),
            key_file=policy.key,
            loaded=policy.loaded,
        )
        for prefix, policy in settings.image_signatures.items()
    )


def _make_collector(shared: Shared, supervisor: Supervisor) -> ImageCollector:
    settings, containerd = shared.settings, shared.containerd
    return ImageCollector(
        containerd,
        CleanupSettings(
            # Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_BEHAVIOR`: prefer-cached keeps all.
            by_age=settings.image_cleanup and settings.image_pull_behavior != "prefer-cached",
            interval_s=settings.image_cleanup_interval_s,
            minimum_age_s=settings.image_minimum_cleanup_age_s,
            deleted_per_cleanup=settings.images_deleted_per_cleanup,
            excluded=settings.image_cleanup_exclude,
            disk_high_percent=settings.image_disk_high_percent,
            disk_low_percent=settings.image_disk_low_percent,
        ),
        shared.image_locks,
        lambda: find_image_users(supervisor.runs()),
        ImageDisk(containerd, settings.snapshotter).measure,
    )


def make_pull_settings(settings: AgentSettings) -> PullSettings:
    """Return what the settings say of pulls."""
    return PullSettings(
        behavior=PullBehavior(settings.image_pull_behavior),
        insecure_registries=settings.insecure_registries,
        registries={
            name: OwnSettings(ca_file=one.ca_file, proxy=one.proxy)
            for name, one in settings.registries.items()
        },
        proxy=settings.registry_proxy,
        no_proxy=settings.registry_no_proxy,
        auth_file=settings.registry_auth_file,
        logins=KeptLogins(settings.state_dir),
        mirrors=settings.registry_mirrors,
        policies=_make_policies(settings),
        snapshotter=settings.snapshotter,
    )


def make_desk(shared: Shared, drivers: Drivers, supervisor: Supervisor) -> LoggerDesk:
    """Make what loggers ask. Blocks, for the database of users.

    Raises:
        AgentError: the user of loggers doesn't exist.
    """

    def find_container(container_id: str) -> tuple[TaskPlan, ContainerPlan] | None:
        run = supervisor.find(container_id.rpartition("-")[0])
        containers = run.plan.containers if run is not None else ()
        found = next((one for one in containers if one.id == container_id), None)
        return (run.plan, found) if run is not None and found is not None else None

    def find_pid(container: ContainerPlan) -> int | None:
        logger = find_logger(shared.cgroups, container)
        return None if logger is None else logger.pid

    return LoggerDesk(
        path=shared.settings.logger_socket,
        user=find_logger_user(shared.settings.logger_user),
        find_container=find_container,
        find_logger=find_pid,
        credentials=shared.roles,
        log_secrets=drivers.secrets,
        audit=shared.audit,
    )


def _make_sources(
    settings: AgentSettings, roles: Roles, aws: AwsSite, egress: Egress
) -> tuple[FetchSecrets, FetchFiles]:
    """Return what fetches secrets and environment files: from AWS, or from what stands for it."""
    if settings.is_local:
        local = LocalSource(
            LocalSecrets(settings.state_dir), settings.local_buckets, settings.region
        )
        return local.fetch, local.fetch_files
    reader = SecretReader(roles, aws, egress, SecretSettings())
    return reader.fetch, EnvFileReader(roles, aws, egress, SecretSettings()).fetch
