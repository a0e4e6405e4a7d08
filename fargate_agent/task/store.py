"""One file per task: the message and what has happened since.

A record is there from before the message is acknowledged until the control plane has taken
STOPPED. Secrets of a message are masked in it. The files outlive a reboot; `boot_id` tells a task
whose containers still run from one that a reboot has killed.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from fargate_agent.files import replace_file, sync
from fargate_agent.reserve import Reserve
from fargate_agent.task.status import TaskFacts
from fargate_agent.wire.faults import render_faults
from fargate_agent.wire.messages import TaskMessage

RESERVE_BYTES: Final = 4 * 1024 * 1024
"""Room for the records of many tasks that are being stopped."""
BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
"""Changes with every boot. Source: proc(5)."""


VERSION: Final = 2
"""Of what a record means. It grows when an older agent would misread a newer record; records that
have none are of the first version. Version 2: a container may have run more than once."""


@dataclass(slots=True, kw_only=True)
class TaskRecord:
    """What is written of one task."""

    version: int = VERSION
    message: TaskMessage
    boot_id: str
    facts: TaskFacts = field(default_factory=TaskFacts)
    stop_reason: str | None = None
    """Why the task is to end; None as long as it is to run."""
    metadata_key: str = field(default="", repr=False)
    """What the metadata ids of the containers are made from; random. Empty in records of agents
    before it: the containers have ids in their environment that were made without."""


_RECORD: Final = TypeAdapter(TaskRecord)
_RUN_MEMBERS: Final = ("created_at", "started_at", "finished_at", "exit_code")
"""In the first version, containers have them themselves."""


class _Envelope(BaseModel):
    """The part of a record that every version has."""

    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTasks:
    """All that a directory of records holds, by task id."""

    records: dict[str, TaskRecord]
    unreadable: dict[str, str]
    """Why each of the others can't be read. Their tasks may run."""


class TaskStore:
    """The records of an agent. A file is replaced as a whole, so it is old or new, never half."""

    def __init__(self, directory: Path, reserve: Reserve | None = None) -> None:
        """On a full disk, what is written of tasks that are here already takes the reserve."""
        self._directory = directory
        self._reserve = reserve

    async def write(self, task_id: str, record: TaskRecord) -> None:
        """Write the record; it outlives this process from now on, a power cut after `sync`."""
        await asyncio.to_thread(self._write, task_id, _RECORD.dump_json(record))

    async def sync(self, task_id: str) -> None:
        """Return when the record outlives a power cut."""
        await asyncio.to_thread(self._sync, task_id)

    async def remove(self, task_id: str) -> None:
        """Forget the task."""
        await asyncio.to_thread(self._path(task_id).unlink, missing_ok=True)

    async def read_all(self) -> StoredTasks:
        """Read every record. One that can't be read stays as it is."""
        return await asyncio.to_thread(self._read_all)

    async def put_aside(self, task_id: str) -> Path:
        """Keep a record from being read again; return where it is."""
        aside = self._path(task_id).with_suffix(".unreadable")
        return await asyncio.to_thread(self._path(task_id).replace, aside)

    def _path(self, task_id: str) -> Path:
        return self._directory / f"{task_id}.json"

    def _write(self, task_id: str, text: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(task_id)
        write = partial(replace_file, path, text, durable=False)
        if self._reserve is not None and path.exists():
            self._reserve.insist(write)
        else:
            write()

    def _sync(self, task_id: str) -> None:
        for path in (self._path(task_id), self._directory):
            with suppress(FileNotFoundError):  # the task has ended already, and everybody knows
                sync(path)

    def _read_all(self) -> StoredTasks:
        records: dict[str, TaskRecord] = {}
        unreadable: dict[str, str] = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                records[path.stem] = _parse(path.read_bytes())
            except (OSError, ValueError) as error:
                why = render_faults(error) if isinstance(error, ValidationError) else str(error)
                unreadable[path.stem] = f"{path}: {why}"
        return StoredTasks(records=records, unreadable=unreadable)


def _parse(text: bytes) -> TaskRecord:
    """Read a record.

    Raises:
        ValueError: it isn't one, or one of a newer agent.
    """
    version = _Envelope.model_validate_json(text).version
    if version > VERSION:
        raise ValueError(f"it has version {version}, this agent knows versions up to {VERSION}")
    return _RECORD.validate_json(text if version == VERSION else _convert(text))


def _convert(text: bytes) -> bytes:
    """Return a record of the first version as one of this; what isn't one stays as it is."""
    record = json.loads(text)
    try:
        for container in record.get("facts", {}).get("containers", {}).values():
            run = {name: container.pop(name, None) for name in _RUN_MEMBERS}
            container["runs"] = [run] if any(value is not None for value in run.values()) else []
    except (AttributeError, TypeError):
        return text
    return json.dumps(record | {"version": VERSION}).encode()


def read_boot_id() -> str:
    """Return what tells this boot of the machine from every other."""
    return BOOT_ID_FILE.read_text().strip()
