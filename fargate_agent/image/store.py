"""The images of the agent: when a registry is asked, and when the copy on this machine will do."""

import asyncio
import logging
import math
import os
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.drivers import (
    FindLogin,
    Image,
    ImageStore,
    PullProgress,
    Service,
    Sweeper,
    no_login,
)
from fargate_agent.egress.retry import Retry, Tries
from fargate_agent.egress.session import Egress
from fargate_agent.errors import CannotPullContainerError, ContainerRuntimeError
from fargate_agent.image.admission import Admission, Policy
from fargate_agent.image.collector import ImageCollector
from fargate_agent.image.content import PlatformImage
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.extraction import Turns
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import PlatformError
from fargate_agent.image.mirrors import Mirrors
from fargate_agent.image.platform import OS, Machine, read_machine
from fargate_agent.image.pull import Progress, Pull
from fargate_agent.image.reference import InvalidReferenceError, Reference, parse_reference
from fargate_agent.image.registry.ecr import EcrPasswords
from fargate_agent.image.registry.hosts import Hosts, OwnSettings, name_of
from fargate_agent.image.registry.kept_logins import KeptLogins, read_auths
from fargate_agent.image.sources import PULL_ERRORS, PullError, Sources, Way
from fargate_agent.image.staging import remove_leftovers
from fargate_agent.image.uses import PULLED_LABEL, USED_LABEL, Uses, render_moment, turn_of
from fargate_agent.plan import TaskPlan

log = logging.getLogger(__name__)

KNOWN_IMAGES: Final = 256
"""How many images are remembered, some kilobytes each."""

ASKED_PAUSE_S: Final = 15.0
"""How long a registry may ask to wait where a copy is here: as long as all the tries may take."""

SOURCE_LABEL: Final = "fargate.agent/pulled-by"
"""On an image record: the mirror's name of the image, if it came from a mirror."""


class PullBehavior(StrEnum):
    """When a registry is asked. Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_BEHAVIOR`."""

    DEFAULT = "default"
    """First; if that fails, the copy on this machine will do."""
    ALWAYS = "always"
    ONCE = "once"
    """Unless this agent has pulled this name before and has it still."""
    PREFER_CACHED = "prefer-cached"
    """Only if there is no copy on this machine, however it came here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    """What an operator may decide about pulls."""

    behavior: PullBehavior = PullBehavior.DEFAULT
    insecure_registries: tuple[str, ...] = ()
    """Hosts, with the port if it isn't 80, that are spoken to without TLS."""
    registries: Mapping[str, OwnSettings] = field(default_factory=dict)
    """What single registries have for themselves, by name."""
    proxy: str = field(default="", repr=False)
    """URL of the proxy that registries are asked through; empty: none."""
    no_proxy: tuple[str, ...] = ()
    """Hosts that are asked without it."""
    auth_file: Path | None = None
    """A Docker `config.json`."""
    logins: KeptLogins | None = None
    """What `fargate login` has kept."""
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Prefixes of names, and what stands for each; see `image.mirrors`."""
    policies: Sequence[Policy] = ()
    """Which images may run; see `image.admission`."""
    snapshotter: str = "overlayfs"
    retry: Retry = field(default_factory=Retry)
    deadline_s: float = 2 * 3600
    """For a whole pull. Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_TIMEOUT`."""
    inactivity_s: float = 60
    """How long a registry may send nothing.

    Source: amazon-ecs-agent README, `ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`.
    """
    machine: Machine = field(default_factory=read_machine)
    trusted: ssl.SSLContext | None = None
    """Who is believed to be a registry; None believes the certificates of the system."""

    def hosts(self) -> Hosts:
        """Return how hosts are spoken to."""
        return Hosts(
            insecure=frozenset(
                host.removesuffix(":80").lower() for host in self.insecure_registries
            ),
            own={name_of(registry): own for registry, own in self.registries.items()},
            proxy=self.proxy,
            no_proxy=self.no_proxy,
        )


class ContainerdImageStore(ImageStore, Service, Sweeper):
    """Keeps images in containerd, and pulls them through the network of the task they're for."""

    def __init__(
        self,
        containerd: Containerd,
        settings: PullSettings,
        egress: Egress,
        locks: KeyedLocks,
        ecr: EcrPasswords | None = None,
        collector: ImageCollector | None = None,
    ) -> None:
        """Without `ecr`, ECR is asked for no passwords; without `collector`, all images stay."""
        self._containerd = containerd
        self._settings = settings
        # Source: amazon-ecs-agent, agent/engine/docker_task_engine.go, `pullContainer`.
        self.failed_pull_ends_task = settings.behavior in (PullBehavior.ALWAYS, PullBehavior.ONCE)
        self._admission = Admission(settings.policies)
        self._locks = locks
        self._turns = Turns(len(os.sched_getaffinity(0)))
        self._collector = collector
        self._uses = collector.uses if collector is not None else Uses()
        self._sources = Sources(
            egress=egress,
            ecr=ecr,
            mirrors=Mirrors(settings.mirrors),
            find_auths=partial(read_auths, settings.logins, settings.auth_file, settings.hosts()),
            hosts=settings.hosts(),
            inactivity_s=settings.inactivity_s,
            trusted=settings.trusted,
        )
        self._known: dict[tuple[str, str], PlatformImage] = {}
        """Images that were there and unpacked, by digest and architecture; a digest stays what it
        is. One that has gone since is forgotten when no container can be made of it."""

    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
        find_login: FindLogin = no_login,
    ) -> Image:
        try:
            name = parse_reference(reference)
        except InvalidReferenceError as error:
            raise CannotPullContainerError(f"failed to resolve ref {reference}: {error}") from error
        shown = Progress(reference, progress)
        pull = Pull(
            reference=name,
            architecture=task.architecture,
            variants=self._settings.machine.variants.get(task.architecture, ()),
            containerd=self._containerd.with_lease(task.lease),
            snapshotter=self._settings.snapshotter,
            tries=self._tries(name, shown),
            locks=self._locks,
            turns=self._turns,
            progress=shown,
            ticket=self._admission.open(name),
        )
        if not pull.variants:
            raise await self._refuse_architecture(pull)
        async with turn_of(self._locks, name.name):
            self._uses.note(name.name)
        way = Way(task=task, network=network, find_login=find_login)
        image = await self._apply_policy(pull, way)
        if len(self._known) >= KNOWN_IMAGES:
            self._known.clear()
        self._known[image.target.digest, pull.architecture] = replace(image, source=None)
        pull.progress.end(len(image.manifest.layers))
        return image.named(name.name)

    async def serve(self) -> None:
        """Collect unused images until cancelled."""
        if self._collector is not None:
            await self._collector.serve()

    async def sweep(self, kept: Collection[str]) -> list[str]:
        del kept  # no task goes on with what another process unpacked
        try:
            return await remove_leftovers(self._containerd.snapshots(self._settings.snapshotter))
        except ContainerdError as error:
            raise ContainerRuntimeError(hide_host_paths(str(error))) from error

    def forget(self, image: Image) -> None:
        self._known = {key: one for key, one in self._known.items() if one.digest != image.digest}

    def _tries(self, reference: Reference, progress: Progress) -> Tries:
        """Log which try is next, and show it."""

        def tell(text: str) -> None:
            if text:
                log.info("%s: %s", reference.name, text)
            progress.note_retry(text)

        return Tries(retry=self._settings.retry, tell=tell)

    async def _apply_policy(self, pull: Pull, way: Way) -> PlatformImage:
        """Apply the pull policy.

        Raises:
            CannotPullContainerError: the image can't be got in this way.
            ResourceInitializationError: nor a password for its registry.
        """
        try:
            match self._settings.behavior:
                case PullBehavior.ALWAYS:
                    return await self._pull(pull, way)
                case PullBehavior.DEFAULT:
                    return await self._pull_or_fall_back(pull, way)
                case PullBehavior.ONCE | PullBehavior.PREFER_CACHED:
                    return await self._find_local_or_pull(pull, way)
        except ContainerdError as error:
            raise CannotPullContainerError(hide_host_paths(str(error))) from error

    async def _pull_or_fall_back(self, pull: Pull, way: Way) -> PlatformImage:
        """Ask the registry, but don't wait for it long where a copy is here."""
        copy, unusable = None, None
        try:
            copy = await self._open_copy(pull)
        except InvalidDocumentError as error:
            unusable = error
        if copy is not None:
            retry = replace(
                pull.tries.retry, unreachable_attempts=1, longest_asked_pause_s=ASKED_PAUSE_S
            )
            pull = replace(pull, tries=replace(pull.tries, retry=retry))
        try:
            return await self._pull(pull, way)
        except PULL_ERRORS as error:
            if unusable is not None:
                raise _neither(error, unusable) from error
            if copy is None:
                raise
            log.warning("%s: using the copy on this machine: %s", pull.reference.name, error)
        await pull.unpack_local(copy)
        return copy

    async def _find_local_or_pull(self, pull: Pull, way: Way) -> PlatformImage:
        try:
            image = await self._find_local(pull)
        except InvalidDocumentError as unusable:
            try:
                return await self._pull(pull, way)
            except PULL_ERRORS as error:
                raise _neither(error, unusable) from error
        return image or await self._pull(pull, way)

    async def _find_local(self, pull: Pull) -> PlatformImage | None:
        """Return the copy on this machine, unpacked; None if there is none, or only a part.

        Raises:
            InvalidDocumentError: it is for another platform, or a document of it is wrong.
        """
        record = await self._find_record(pull)
        if record is None:
            return None
        image = self._known.get((record.target.digest, pull.architecture))
        if image is None:
            image = await pull.open_local(record.target)
            if image is None:
                return None
            await pull.unpack_local(image)
        return replace(image, source=record.labels.get(SOURCE_LABEL))

    async def _open_copy(self, pull: Pull) -> PlatformImage | None:
        """Return the copy on this machine, all that is needed of it kept, as `_find_local` does."""
        record = await self._find_record(pull)
        if record is None:
            return None
        image = self._known.get((record.target.digest, pull.architecture))
        if image is None or not await pull.is_unpacked(image):
            image = await pull.open_local(record.target)
        return image and replace(image, source=record.labels.get(SOURCE_LABEL))

    async def _find_record(self, pull: Pull) -> ImageRecord | None:
        """Return what the name stands for here; None if that doesn't count.

        The record keeps it from the garbage collector, and all that it refers to.

        Raises:
            NotAdmittedError: a policy doesn't let it run.
        """
        try:
            record = await pull.containerd.images.get(pull.reference.name)
        except NotFoundError:
            return None
        if self._settings.behavior is PullBehavior.ONCE and PULLED_LABEL not in record.labels:
            return None
        await pull.ticket.check_copy(record)
        return record

    async def _refuse_architecture(self, pull: Pull) -> CannotPullContainerError:
        """Return the error of a task for another machine; it tells what the copy here is for."""
        runs = ", ".join(f"{OS}/{one}" for one in self._settings.machine.variants)
        text = (
            f"image {pull.reference.name} can't be run: the task is for {OS}/{pull.architecture}, "
            f"and this machine runs {runs}"
        )
        try:
            record = await pull.containerd.images.get(pull.reference.name)
            await pull.open_local(record.target)
        except PlatformError as error:
            text += f"; the copy of the image here is for {', '.join(map(str, error.found))}"
        except (ContainerdError, InvalidDocumentError):
            pass  # there is no copy that could be told of
        return CannotPullContainerError(text)

    async def _pull(self, pull: Pull, way: Way) -> PlatformImage:
        pull.ticket.check_name()
        await way.network.wait()
        deadline = asyncio.timeout(self._settings.deadline_s)
        try:
            async with deadline:
                tries = replace(pull.tries, ends_at=deadline.when() or math.inf)
                image = await self._sources.pull(replace(pull, tries=tries), way)
        except TimeoutError as error:
            raise CannotPullContainerError(
                f"ref pull has not ended within {self._settings.deadline_s:g} s: "
                "context deadline exceeded"
            ) from error
        now = render_moment(datetime.now(UTC))
        labels = {PULLED_LABEL: now, USED_LABEL: now, **pull.ticket.labels}
        if image.source is not None:
            labels[SOURCE_LABEL] = image.source
        await pull.containerd.images.ensure(
            ImageRecord(name=pull.reference.name, target=image.target, labels=labels)
        )
        return image


def _neither(pull: PullError, copy: InvalidDocumentError) -> PullError:
    return type(pull)(f"{pull.detail}; the copy of the image on this machine can't be used: {copy}")
