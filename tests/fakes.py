"""Fakes of every driver. Each call is written into a diary: a test reads as what happened."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fargate_agent.drivers import (
    ContainerUsage,
    Drivers,
    EniDriver,
    EphemeralStorage,
    ExecIo,
    ExitStatus,
    FindLogin,
    Image,
    ImageConfig,
    ImageStore,
    LogDriver,
    MetadataEndpoint,
    NetnsDriver,
    PullProgress,
    Runtime,
    SecretStore,
    SecurityGroups,
    StorageUse,
    VolumeDriver,
    VpcServices,
    no_login,
)
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, EniPlan, TaskPlan, VolumePlan
from fargate_agent.plan.names import ZonePlan
from fargate_agent.plan.security_groups import GroupPlan
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.volume_kinds import VolumeKind

MOMENT = datetime(2026, 1, 5, 10, 0, 7, tzinfo=UTC)


@dataclass
class Diary:
    """Every call of a driver, in order. One entry of it may fail, or never return."""

    fail_at: str | int | None = None
    """An entry, each time that it is written; or the place of one, counted from 0."""
    error: Callable[[str], Exception] = ResourceInitializationError
    hang_at: str | None = None
    calls: list[str] = field(default_factory=list)

    def note(self, call: str) -> None:
        """Write a call that can't wait."""
        self.calls.append(call)
        if self.fail_at in (call, len(self.calls) - 1):
            raise self.error(f"refused: {call}")

    async def write(self, call: str) -> None:
        """Write a call, and let others go on meanwhile."""
        self.note(call)
        await asyncio.sleep(0)
        if call == self.hang_at:
            await asyncio.get_running_loop().create_future()


@dataclass
class FakeNetns(NetnsDriver):
    diary: Diary

    async def ensure(self, netns: Path) -> None:
        await self.diary.write("ensure netns")

    async def release(self, netns: Path) -> None:
        await self.diary.write("release netns")


@dataclass
class FakeStorage(EphemeralStorage):
    diary: Diary

    async def ensure(self, task: TaskPlan) -> None:
        await self.diary.write("ensure storage")

    async def release(self, task: TaskPlan) -> None:
        await self.diary.write("release storage")

    async def usage(self, task: TaskPlan) -> StorageUse | None:
        return None


@dataclass
class FakeVolumes(VolumeDriver):
    diary: Diary
    needs_network: bool = False

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        await self.diary.write(f"ensure volume {volume.name}")

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        await self.diary.write(f"release volume {volume.name}")


@dataclass
class FakeEni(EniDriver):
    diary: Diary
    attached: dict[str, Path] = field(default_factory=dict)

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        await self.diary.write(f"attach {eni.ifname}")
        self.attached[eni.mac] = netns

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        await self.diary.write(f"confirm {eni.ifname}")

    async def update(self, eni: EniPlan, netns: Path) -> None:
        await self.diary.write(f"update {eni.ifname}")

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        await self.diary.write(f"detach {eni.ifname}")
        self.attached.pop(eni.mac, None)


@dataclass
class FakeMetadata(MetadataEndpoint):
    diary: Diary

    async def ensure(self, task: TaskPlan) -> None:
        await self.diary.write("listen")

    async def release(self, task: TaskPlan) -> None:
        await self.diary.write("close")


@dataclass
class FakeImages(ImageStore):
    diary: Diary

    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
        find_login: FindLogin = no_login,
    ) -> Image:
        await network.wait()
        await self.diary.write(f"pull {reference}")
        return Image(
            name=reference,
            digest="sha256:" + "1" * 64,
            config_digest="sha256:" + "2" * 64,
            chain_id="sha256:" + "3" * 64,
            config=ImageConfig(),
        )

    def forget(self, image: Image) -> None:
        self.diary.note(f"forget {image.name}")


@dataclass
class FakeRuntime(Runtime):
    diary: Diary
    exits: Mapping[str, ExitStatus] = field(default_factory=dict)
    """How containers end by themselves; one that isn't here runs until it is stopped."""
    stopped_exit: ExitStatus = ExitStatus(code=143, at=MOMENT)
    """How one ends that is stopped."""
    exit_after_s: float = 0
    """How long they run that end by themselves."""
    lost_loggers: set[str] = field(default_factory=set)
    """Names of containers whose loggers have ended."""
    runs: dict[str, list[tuple[float, ExitStatus]]] = field(default_factory=dict)
    """How long containers run that are restarted, and how they end, time after time; then they run
    until they are stopped. The first is the run of now."""
    ended: set[str] = field(default_factory=set)
    """Names of containers of which the process that ended is still there."""
    started_s: dict[str, float] = field(default_factory=dict)
    on_exec: Callable[[ContainerPlan, ExecIo, float | None], Awaitable[int]] | None = None
    created: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    async def ready(self) -> None:
        await self.diary.write("ready")

    async def prepare(self, task: TaskPlan) -> None:
        await self.diary.write("prepare")

    async def release(self, task: TaskPlan) -> None:
        await self.diary.write("release")

    async def exists(self, container: ContainerPlan) -> bool:
        await self.diary.write(f"exists {container.name}")
        return container.name in self.created

    async def create(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        log_uri: str | None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        begun()
        await self.diary.write(f"create {container.name}")
        self.created.add(container.name)

    async def start(self, task: TaskPlan, container: ContainerPlan) -> None:
        await self.diary.write(f"start {container.name}")
        if container.name not in self.started:
            self.started_s[container.name] = asyncio.get_running_loop().time()
        self.started.add(container.name)

    async def restart(self, task: TaskPlan, container: ContainerPlan, log_uri: str | None) -> None:
        await self.diary.write(f"restart {container.name}")
        if container.name in self.ended:
            self.ended.discard(container.name)
            self.created.discard(container.name)
            self.runs.get(container.name, [()]).pop(0)
        if container.name not in self.created:
            self.started.discard(container.name)
            self.created.add(container.name)

    async def exec(
        self,
        container: ContainerPlan,
        exec_id: str,
        argv: tuple[str, ...],
        io: ExecIo,
        deadline_s: float | None,
    ) -> int:
        await self.diary.write(f"exec {exec_id} in {container.name}")
        return 0 if self.on_exec is None else await self.on_exec(container, io, deadline_s)

    async def end_exec(self, container: ContainerPlan, exec_id: str) -> None:
        await self.diary.write(f"end exec {exec_id} in {container.name}")

    async def wait(self, container: ContainerPlan) -> ExitStatus:
        await self.diary.write(f"wait {container.name}")
        if runs := self.runs.get(container.name):
            after_s, status = runs[0]
            began_s = self.started_s.get(container.name, 0)
            await asyncio.sleep(began_s + after_s - asyncio.get_running_loop().time())
            self.ended.add(container.name)
            return status
        if container.name not in self.exits:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.exit_after_s)
        return self.exits[container.name]

    async def watch_logger(self, container: ContainerPlan) -> None:
        await self.diary.write(f"watch {container.name}")
        if container.name not in self.lost_loggers:
            await asyncio.get_running_loop().create_future()

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        await self.diary.write(f"stop {container.name}")
        ran = container.name in self.started
        self.ended.discard(container.name)
        self.created.discard(container.name)
        self.started.discard(container.name)
        return self.exits.get(container.name, self.stopped_exit) if ran else None

    async def usage(self, containers: tuple[ContainerPlan, ...]) -> Mapping[str, ContainerUsage]:
        await self.diary.write(f"usage {', '.join(container.name for container in containers)}")
        return {}


@dataclass
class FakeLogs(LogDriver):
    diary: Diary
    needs_network: bool = False

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        self.diary.note(f"log uri {container.name}")
        return f"binary:///logger?--log-path={container.log_path}"


@dataclass
class FakeSecrets(SecretStore):
    diary: Diary

    held: set[str] = field(default_factory=set)
    """Tasks whose secrets loggers can ask for."""

    async def ensure(self, task: TaskPlan) -> None:
        await self.diary.write("hold secrets")
        self.held.add(task.id)

    async def complete(self, task: TaskPlan, container: ContainerPlan) -> ContainerPlan:
        if not container.refers:
            return container
        references = container.secrets.values()
        await self.diary.write(f"fetch {', '.join(sorted(references))}")
        own = {name: f"value of {one}" for name, one in container.secrets.items()}
        return replace(container, environment={**container.environment, **own})

    async def registry_credentials(
        self, task: TaskPlan, container: ContainerPlan
    ) -> tuple[str, str] | None:
        return None

    async def release(self, task: TaskPlan) -> None:
        await self.diary.write("drop secrets")
        self.held.discard(task.id)


class FakeSecurityGroups(SecurityGroups):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.adopted: list[EniPlan] = []
        self.learned: list[tuple[tuple[GroupPlan, ...], bool]] = []

    async def adopt(self, enis: Collection[EniPlan]) -> None:
        self.adopted += enis

    async def learn(self, groups: Collection[GroupPlan], *, is_whole: bool = False) -> None:
        self.learned.append((tuple(groups), is_whole))


class FakeVpcServices(VpcServices):
    """Remembers what it was told."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary
        self.learned: list[tuple[ZonePlan, ...]] = []

    async def ensure(self, task: TaskPlan) -> None:
        return

    async def release(self, task: TaskPlan) -> None:
        return

    async def learn(self, zones: Collection[ZonePlan]) -> None:
        self.learned.append(tuple(zones))


@dataclass
class FakeDrivers:
    """Every fake, and the `Drivers` made of them."""

    diary: Diary
    runtime: FakeRuntime
    all: Drivers


def fake_drivers(
    diary: Diary | None = None, exits: Mapping[str, ExitStatus] | None = None
) -> FakeDrivers:
    diary = diary or Diary()
    runtime = FakeRuntime(diary, exits or {})
    eni = FakeEni(diary)
    return FakeDrivers(
        diary=diary,
        runtime=runtime,
        all=Drivers(
            netns=FakeNetns(diary),
            security_groups=FakeSecurityGroups(),
            vpc=FakeVpcServices(diary),
            enis=dict.fromkeys(EniKind, eni),
            metadata=FakeMetadata(diary),
            images=FakeImages(diary),
            runtime=runtime,
            storage=FakeStorage(diary),
            volumes={
                kind: FakeVolumes(diary, needs_network=kind is VolumeKind.EFS)
                for kind in VolumeKind
            },
            logs={"json-file": FakeLogs(diary), "fluentd": FakeLogs(diary, needs_network=True)},
            secrets=FakeSecrets(diary),
        ),
    )
