"""What an agent was sent of its tasks, and what it is to be sent."""

import time
from dataclasses import dataclass

from sqlalchemy import Select, select

from fargate_agent.controlplane.state.model import LIVE, Task


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

    def is_of(self, task: Task) -> bool:
        """Whether nothing of the task has changed since."""
        return self.groups == tuple(task.eni.security_groups)


def note_sent(task: Task) -> Sent:
    """Return the note that a task is sent now."""
    return Sent(task.id, task.desired_status, tuple(task.eni.security_groups), time.monotonic())


def message_id(task_id: str, desired_status: str) -> str:
    """Return the id of the message about a task; the same whenever it is sent again."""
    return f"{task_id}-{desired_status}"


def select_live(instance_id: str) -> Select[Task]:
    """Select the tasks of an agent that haven't stopped, the oldest first."""
    return select(Task).where(Task.instance_id == instance_id, LIVE).order_by(Task.created_at)


def is_unsettled(task: Task) -> bool:
    """Whether the agent is yet to be told something of a task."""
    return task.last_status != "STOPPED" and (
        task.desired_status == "STOPPED" or task.delivery != "ACKED"
    )
