"""What the kernel tells of a process in one line; see proc(5), /proc/[pid]/stat."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """A process, be it one that has ended and that its parent hasn't noticed yet."""

    state: str
    parent: int
    session: int
    began: int
    """Clock ticks since the boot."""

    @property
    def has_ended(self) -> bool:
        """Whether it is no more than its exit code."""
        return self.state in {"Z", "X"}


def read_process_stat(pid: int) -> ProcessStat | None:
    """Return what the kernel tells of a process; None if it has gone. Blocks for microseconds."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may have spaces and brackets
    return ProcessStat(
        state=fields[0], parent=int(fields[1]), session=int(fields[3]), began=int(fields[19])
    )
