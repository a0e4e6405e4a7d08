"""What CNI plugins were asked to make and not yet to remove, over restarts of the agent.

An attachment is written down before its plugins begin, and again with their result. So there is
nothing of theirs that no file tells of. The network is kept as it was, so that it can be undone
when its configuration has been changed or removed. All methods block.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.files import replace_file
from fargate_agent.network.cni.conflist import Conflist, parse_conflist

DIRECTORY: Final = "cni-attachments"
"""Below the state directory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One attachment."""

    eni_id: str
    container_id: str
    """The name of the task's network namespace."""
    ifname: str
    netns: Path
    args: str
    runtime: Mapping[str, Any]
    network: Conflist
    result: dict[str, Any] | None
    """What ADD returned; None: it may be under way, or cut short."""


class Attachments:
    """The attachments of one agent, each in a file."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made with the first attachment."""
        self._directory = directory

    def read(self, container_id: str, ifname: str) -> Held | None:
        """Return an attachment; None if there is none, or its file makes no sense."""
        return _read(self._file(container_id, ifname))

    def write(self, held: Held) -> None:
        """Write an attachment down, so that it survives a power cut.

        Raises:
            OSError: the file can't be written; what it held is still there.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {
            "state": "adding" if held.result is None else "added",
            "eni": held.eni_id,
            "container": held.container_id,
            "ifname": held.ifname,
            "netns": str(held.netns),
            "args": held.args,
            "runtime": held.runtime,
            "network": held.network.render(),
            "result": held.result,
        }
        replace_file(self._file(held.container_id, held.ifname), f"{json.dumps(document)}\n")

    def remove(self, held: Held) -> None:
        """Forget an attachment; it may have been forgotten before."""
        self._lock_file(held).unlink(missing_ok=True)
        self._file(held.container_id, held.ifname).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove drafts that an agent before was killed at."""
        for draft in self._directory.glob(".*"):
            draft.unlink(missing_ok=True)

    def try_lock(self, held: Held) -> int | None:
        """Return a descriptor that locks an attachment; None: another holds it.

        Plugins inherit it. If an agent is killed, it is theirs until they have ended, and the next
        agent doesn't begin before. The caller unlocks it with `unlock`.

        Raises:
            OSError: the file can't be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._lock_file(held), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def __iter__(self) -> Iterator[Held]:
        for file in sorted(self._directory.glob("*.json")):
            held = _read(file)
            if held is not None:
                yield held

    def _lock_file(self, held: Held) -> Path:
        return self._directory / f"{held.container_id}.{held.ifname}.lock"

    def _file(self, container_id: str, ifname: str) -> Path:
        return self._directory / f"{container_id}.{ifname}.json"


def unlock(descriptor: int) -> None:
    """Unlock what `try_lock` locked, also if a program that a plugin left running has it open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _read(file: Path) -> Held | None:
    try:
        document = json.loads(file.read_bytes())
        result = document["result"]
        return Held(
            eni_id=str(document["eni"]),
            container_id=str(document["container"]),
            ifname=str(document["ifname"]),
            netns=Path(document["netns"]),
            args=str(document["args"]),
            runtime=dict(document["runtime"]),
            network=parse_conflist(document["network"]),
            result=None if result is None else dict(result),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error("%s can't be read, so its CNI plugins aren't undone: %s", file.name, error)
        return None
