"""Unused images go: after a time, and earlier when the disk fills up.

Never removed are images that a task uses, images that were loaded from a file (no registry may have
them), and those that a setting names. What a removed record kept, its content and snapshots, is
collected by containerd: what other images, tasks or pulls need stays. What is left of a layer whose
pull broke off, containerd removes after a day, and the collector before it removes an image.

Source: amazon-ecs-agent README, `ECS_IMAGE_CLEANUP_INTERVAL` and those beside it, and
agent/engine/docker_image_manager.go; for the marks of the disk kubelet, image-gc-high-threshold.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.drivers import Service
from fargate_agent.image.content import drop_unfinished
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.reference import InvalidReferenceError, parse_reference
from fargate_agent.image.uses import (
    USED_LABEL,
    Users,
    Uses,
    find_users,
    is_loaded,
    render_moment,
    turn_of,
    used_at,
)

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 60.0
"""How often uses are written down and the disk is measured."""

LOOK_PAUSE_S: Final = 2.0
"""Between two looks, however many tasks start."""

REFRESH: Final = timedelta(hours=1)
"""How old the label of an image may become while a task uses it: so much is forgotten at most when
the agent is killed before it has seen a task end."""

JUMP_S: Final = 10.0
"""A clock that has gone so much further, or less far, than the time that has passed, was set."""

NO_MARK: Final = 100
"""A high mark of so many percent turns it off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupSettings:
    """What an operator may decide about images that aren't used."""

    by_age: bool = True
    interval_s: float = 1800
    minimum_age_s: float = 3600
    deleted_per_cleanup: int = 5
    """By age. The mark of the disk knows no such limit."""
    excluded: tuple[str, ...] = ()
    """Names of images that stay."""
    disk_high_percent: int = 85
    disk_low_percent: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time of day, which may be set, and the time that passes."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    uptime_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    """Goes on while the machine sleeps."""


MeasureDisk = Callable[[], Awaitable[float]]
"""Returns how full the disk of containerd is, in percent."""


class ImageCollector(Service):
    """Removes images that are not used. Owns the label that says when each was used last."""

    def __init__(
        self,
        containerd: Containerd,
        settings: CleanupSettings,
        locks: KeyedLocks,
        users: Users,
        measure_disk: MeasureDisk,
        clock: Clock | None = None,
    ) -> None:
        """Share `locks` with the image store."""
        self._containerd = containerd
        self._settings = settings
        self._locks = locks
        self._users = users
        self.uses = Uses()
        """Hears of what tasks begin to use."""
        self._measure_disk = measure_disk
        self._clock = clock or Clock()
        self._excluded = frozenset(_full_names(settings.excluded))
        self._in_use: frozenset[str] = frozenset()
        self._seen = self._clock.now(), self._clock.uptime_s()
        self._is_full = False

    async def serve(self) -> None:
        """Collect until cancelled. A round that fails is logged, and the next is another try."""
        due_s = self._clock.uptime_s() + self._settings.interval_s
        while True:
            try:
                await self.look()
                if self._settings.by_age and self._clock.uptime_s() >= due_s:
                    due_s = self._clock.uptime_s() + self._settings.interval_s
                    await self.clean_up()
            except (ContainerdError, OSError) as error:
                log.warning("images could not be cleaned up: %s", error)
            await asyncio.sleep(LOOK_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(due_s)):
                    await self.uses.news.wait()

    async def look(self) -> None:
        """Write down which images are used, and make room on a disk that is too full.

        Raises:
            ContainerdError: containerd doesn't answer.
            OSError: the disk can't be measured.
        """
        await self._note_uses(await self._containerd.images.list())
        await self._make_room()

    async def clean_up(self) -> list[str]:
        """Remove images by age, and return their names.

        Raises:
            ContainerdError: containerd doesn't answer.
        """
        oldest = self._clock.now() - timedelta(seconds=self._settings.minimum_age_s)
        unused = await self._find_unused()
        old = [record for record in unused if used_at(record) <= oldest]
        return [
            record.name
            for record in old[: self._settings.deleted_per_cleanup]
            if await self._remove(record, "it has not been used for a while")
        ]

    def _pause_s(self, due_s: float) -> float:
        if not self._settings.by_age:
            return LOOK_EVERY_S
        return max(0.0, min(LOOK_EVERY_S, due_s - self._clock.uptime_s()))

    async def _note_uses(self, records: Sequence[ImageRecord]) -> None:
        """Set the labels of what is used, was used until now, or has a time that can't be."""
        now, jump = self._clock.now(), self._measure_jump()
        noted, in_use = self.uses.take(), frozenset(find_users(self._users))
        ended = self._in_use - in_use
        self._in_use = in_use
        for record in records:
            then = used_at(record)
            moment = min(then + jump, now)
            is_stale = record.name in in_use and now - moment > REFRESH
            if is_stale or record.name in noted or record.name in ended:
                moment = now
            if moment != then:
                with suppress(NotFoundError):  # it has just been removed
                    await self._containerd.images.set_labels(
                        record.name, {USED_LABEL: render_moment(moment)}
                    )

    def _measure_jump(self) -> timedelta:
        """Return by how much the clock was set since the last look.

        All times of use are moved by it: images have the age that they had before.
        """
        (now, uptime_s), (then, then_s) = (self._clock.now(), self._clock.uptime_s()), self._seen
        self._seen = now, uptime_s
        jump = now - then - timedelta(seconds=uptime_s - then_s)
        if abs(jump.total_seconds()) < JUMP_S:
            return timedelta()
        log.info("the clock was set by %.0f s: images keep their age", jump.total_seconds())
        return jump

    async def _make_room(self) -> None:
        high, low = self._settings.disk_high_percent, self._settings.disk_low_percent
        if high >= NO_MARK or (used := await self._measure_disk()) < high:
            self._is_full = False
            return
        await drop_unfinished(self._containerd.content, self._locks)
        used = await self._measure_disk()
        # What fills a disk that was still full without unused images is something else: new ones
        # would be pulled and removed over and over, for nothing.
        pause_s = self._settings.minimum_age_s if self._is_full else 0
        latest = self._clock.now() - timedelta(seconds=pause_s)
        for record in await self._find_unused():
            if used < low or used_at(record) > latest:
                break
            if await self._remove(record, f"{used:.0f} % of the disk is in use"):
                used = await self._measure_disk()
        if used >= high and not self._is_full:
            log.warning(
                "%.0f %% of the disk is in use, and no image is left that could be removed: "
                "make room on it, or see 'fargate images ls'",
                used,
            )
        self._is_full = used >= high

    async def _find_unused(self) -> list[ImageRecord]:
        """Return what may be removed, that which was used longest ago first."""
        in_use = set(find_users(self._users)) | self._excluded
        in_use |= {container.image for container in await self._containerd.containers.list()}
        unused = [
            record
            for record in await self._containerd.images.list()
            if record.name not in in_use and not is_loaded(record)
        ]
        return sorted(unused, key=lambda record: (used_at(record), record.name))

    async def _remove(self, record: ImageRecord, why: str) -> bool:
        """Remove an image, unless it was replaced or a task began to use it since it was found."""
        async with turn_of(self._locks, record.name):
            if record.name in find_users(self._users):
                return False
            try:
                found = await self._containerd.images.get(record.name)
            except NotFoundError:
                return False
            if is_loaded(found) or _state_of(found) != _state_of(record):
                return False
            await self._containerd.images.delete(record.name)
        log.info("removed image %s, last used %s: %s", record.name, used_at(record), why)
        return True


def _state_of(record: ImageRecord) -> tuple[str, datetime | None]:
    """Return what differs if the record was written anew."""
    return record.target.digest, record.updated_at


def _full_names(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        with suppress(InvalidReferenceError):
            yield parse_reference(name).name
