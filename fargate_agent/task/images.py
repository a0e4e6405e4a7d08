"""Which tasks use which images."""

from collections.abc import Iterable

from fargate_agent.plan import TaskPlan
from fargate_agent.task.runner import TaskRun


def find_image_users(runs: Iterable[TaskRun]) -> dict[str, list[TaskPlan]]:
    """Return the tasks that use each image, by its name as task definitions write it.

    A task uses its images from its message until it is over: those that it still has to pull too.
    """
    users: dict[str, list[TaskPlan]] = {}
    for run in runs:
        names = {container.image for container in run.plan.containers}
        for name in names | {image.name for image in run.images.values()}:
            users.setdefault(name, []).append(run.plan)
    return users
