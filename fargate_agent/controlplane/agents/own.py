"""What a key of an agent may see of tasks: its own, which run where it has registered."""

from collections.abc import Iterable

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.access.keys import AGENT
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session


async def check_own_tasks(session: Session, caller: Caller, tasks: Iterable[Task]) -> None:
    """Return unless the caller is an agent and one of the tasks is another's.

    Raises:
        ApiError: it is.
    """
    if caller.principal != AGENT:
        return
    for task in tasks:
        instance = await session.get(ContainerInstance, task.instance_id)
        if instance is None or instance.access_key_id != caller.access_key_id:
            raise ApiError(
                "AccessDeniedException",
                "The task is on a container instance that was registered with another key.",
            )
