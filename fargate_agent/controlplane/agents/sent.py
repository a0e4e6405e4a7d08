"""What an agent was sent of its tasks, and what it is to be sent."""

import hashlib
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Select, or_, select

from fargate_agent.controlplane.state.model import LIVE, Eni, Task

TAKEN: Final = ("ACKED", "CHANGED")
"""How the delivery stands of tasks that an agent answers for."""


@dataclass(slots=True)
class Sent:
    """A message about a task that is on its way."""

    task_id: str
    desired_status: str
    groups: tuple[str, ...]
    """Security groups of its ENI, as they were sent."""
    at: float
    """On the monotonic clock."""
    is_acked: bool = False
    """Which is being written down."""

    @property
    def message_id(self) -> str:
        """The same whenever the message is sent again, and another once the groups are others."""
        digest = hashlib.sha256(",".join(self.groups).encode()).hexdigest()[:8]
        return f"{sent_key(self.task_id, self.desired_status)}-{digest}"

    def is_of(self, task: Task) -> bool:
        """Whether nothing of the task has changed since."""
        return self.groups == tuple(task.eni.security_groups)


def note_sent(task: Task) -> Sent:
    """Return the note that a task is sent now."""
    return Sent(task.id, task.desired_status, tuple(task.eni.security_groups), time.monotonic())


def sent_key(task_id: str, desired_status: str) -> str:
    """Return what a message about a task is kept by; at most one of them is on its way."""
    return f"{task_id}-{desired_status}"


def key_of(message_id: str) -> str:
    """Return the key of a message by its id."""
    return message_id.rpartition("-")[0]


def select_live(instance_id: str) -> Select[Task]:
    """Select the tasks of an agent that haven't stopped, the oldest first."""
    return select(Task).where(Task.instance_id == instance_id, LIVE).order_by(Task.created_at)


def select_unsettled(instance_id: str) -> Select[Task]:
    """Select the tasks of which an agent is yet to be told something, with their ENIs."""
    unsettled = or_(Task.desired_status == "STOPPED", Task.delivery != "ACKED")
    return select_live(instance_id).join(Eni, Eni.task_id == Task.id).where(unsettled)


def is_unsettled(task: Task) -> bool:
    """Whether the agent is yet to be told something of a task."""
    return task.last_status != "STOPPED" and (
        task.desired_status == "STOPPED" or task.delivery != "ACKED"
    )
