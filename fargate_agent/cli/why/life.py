"""Why a task that runs isn't as it should be: its health checks and its restarts. Pure."""

from dataclasses import replace
from typing import Final

from fargate_agent.cli.clients.shapes import Container, Task
from fargate_agent.cli.tasks.life import tell_failures
from fargate_agent.cli.why.exits import explain_exit
from fargate_agent.cli.why.explanation import TASK_LOG, Explanation

_AWAITED: Final = "What waits for HEALTHY waits until it passes."
_NOT_AWAITED: Final = "A service replaces such a task; a task that was run by itself goes on."
_NOT_ESSENTIAL: Final = "It isn't essential: the task goes on, and a service keeps it."


def explain_life(task: Task) -> Explanation | None:
    """Say what is wrong with the containers of a task that has not ended; None: nothing is."""
    containers = task.get("containers", [])
    if sick := find_sick(task):
        return _explain_sick(sick, is_awaited=task.get("lastStatus") != "RUNNING")
    if restarted := [container for container in containers if container.get("restartCount")]:
        return _explain_restarts(max(restarted, key=lambda c: c["restartCount"]))
    return next((_explain_waiting(c) for c in containers if _waits_for_check(c)), None)


def find_sick(task: Task) -> Container | None:
    """The first container whose health check fails; one that is essential, if there is one."""
    sick = [c for c in task.get("containers", []) if c.get("healthStatus") == "UNHEALTHY"]
    return min(sick, key=lambda c: not c.get("essential", True), default=None)


def _waits_for_check(container: Container) -> bool:
    """Whether a container was started, and its checks have said nothing yet."""
    is_started = any(run["startedAt"] is not None for run in container.get("runs", []))
    return is_started and "health" in container and container["health"]["status"] == "UNKNOWN"


def _explain_sick(container: Container, *, is_awaited: bool) -> Explanation:
    what = f"The health check of container {container['name']} fails"
    if "health" in container and (failures := tell_failures(container["health"])):
        what += f": {failures}"
    return Explanation(
        f"{what}.",
        f"{_say_what_follows(container, is_awaited=is_awaited)}"
        " See whether the check suits: its command, timeout, retries and startPeriod.",
        TASK_LOG,
    )


def _say_what_follows(container: Container, *, is_awaited: bool) -> str:
    if is_awaited:
        return _AWAITED
    return _NOT_AWAITED if container.get("essential", True) else _NOT_ESSENTIAL


def _explain_restarts(container: Container) -> Explanation:
    count = container["restartCount"]
    often = "once" if count == 1 else f"{count} times"
    what = f"Container {container['name']} was restarted {often}."
    codes = [run["exitCode"] for run in container.get("runs", []) if run["exitCode"] is not None]
    if not codes:
        return Explanation(what, "Its restartPolicy asks for that.", TASK_LOG)
    ended: Container = {"name": container["name"], "exitCode": codes[-1]}
    end = explain_exit(ended)
    before = f"Before that, {end.what[0].lower()}{end.what[1:]}"
    return replace(end, what=f"{what} {before}", log=end.log or TASK_LOG)


def _explain_waiting(container: Container) -> Explanation:
    health = container.get("health")
    what = f"The health check of container {container['name']} has not passed yet"
    if health is not None and (failures := tell_failures(health)):
        return Explanation(f"{what}: {failures}.", _AWAITED, TASK_LOG)
    return Explanation(f"{what}.", "The first check comes an interval after the start.")
