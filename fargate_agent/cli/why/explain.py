"""What the state and the end of a task mean. Pure."""

import re
from dataclasses import replace
from typing import Final

from fargate_agent.cli.clients.shapes import Task
from fargate_agent.cli.why.exits import explain_exit, find_culprit
from fargate_agent.cli.why.explanation import TASK_LOG, Explanation
from fargate_agent.cli.why.life import explain_life, find_sick
from fargate_agent.cli.why.reasons import explain_reason

_RETRIED: Final = re.compile(r"try \d+ of \d+: ")
"""How the reason of a container begins whose image is being tried again."""

_STOP_CODES: Final = {
    "UserInitiated": Explanation("Somebody asked for its end."),
    "SpotInterruption": Explanation("Its spot capacity was taken back.", "Run it again."),
    "TerminationNotice": Explanation("The machine below it was retired.", "Run it again."),
    "InfrastructureHealth": Explanation("The machine below it failed.", "Run it again."),
}
_SCHEDULER: Final = Explanation(
    "The service needed it no more: it was scaled in, its deployment was replaced, or its machine"
    " is being drained."
)
_DISCONNECTED: Final = Explanation(
    "Nothing is heard of the agent that has it; what is shown is the last that was.",
    "See whether the agent runs: fargate doctor. The task may go on meanwhile.",
)
_STOPPING: Final = Explanation(
    "It is to stop, and has not stopped yet.",
    "Containers have their stopTimeout, 30 s by default, before they are killed.",
)
_PULLING: Final = Explanation(
    "Its images are being pulled.", "If it stays so: see the way to the registry."
)
_STARTING: Final = Explanation(
    "Its containers are being started.", log="If it stays so: fargate logs {task}"
)
_PROGRESS: Final = {
    "PROVISIONING": Explanation(
        "No agent has begun with it, or its network interface is being made.",
        "If it stays so: see whether the agent runs: fargate doctor.",
    ),
    "RUNNING": Explanation("It runs."),
}
_OUT_OF_DISK: Final = Explanation(
    "The disk of its machine was almost full. The task had filled it most, and was killed.",
    "Let it write less, or make room on that disk. It says how full it is: fargate doctor.",
)
_NOT_STARTED: Final = Explanation(
    "It failed before it ran; the reason says at what.", "See fargate doctor."
)


def explain(task: Task) -> Explanation:
    """Say why a task is as it is; its reason and containers decide."""
    stopped = task.get("lastStatus") == "STOPPED"
    found = _explain_end(task) if stopped else _explain_progress(task)
    task_id = task["taskArn"].rpartition("/")[2]
    return replace(found, log=found.log.replace("{task}", task_id))


def _explain_end(task: Task) -> Explanation:
    code = task.get("stopCode", "")
    if code in _STOP_CODES:
        return _STOP_CODES[code]
    if code == "ServiceSchedulerInitiated":
        is_sick = "health check" in task.get("stoppedReason", "")
        return _explain_replaced(task) if is_sick else _SCHEDULER
    if task.get("stoppedReason", "").startswith("OutOfDiskError"):
        return _OUT_OF_DISK
    if code == "EssentialContainerExited" and (container := find_culprit(task)):
        return explain_exit(container)
    reasons = [task.get("stoppedReason", "")]
    reasons += [container.get("reason", "") for container in task.get("containers", [])]
    return next((found for reason in reasons if (found := explain_reason(reason))), _NOT_STARTED)


def _explain_replaced(task: Task) -> Explanation:
    sick = find_sick(task)
    whose = "its" if sick is None else f"container {sick['name']}'s"
    return Explanation(
        f"The service replaced it because it was not healthy: {whose} health check failed.",
        "See the health check: its command, timeout, retries and startPeriod.",
        TASK_LOG,
    )


def is_pulling(task: Task) -> bool:
    """Whether the task waits for its images."""
    return task.get("lastStatus") == "PENDING" and "pullStoppedAt" not in task


def _explain_progress(task: Task) -> Explanation:
    if task.get("connectivity") == "DISCONNECTED":
        return _DISCONNECTED
    if task.get("desiredStatus") == "STOPPED":
        return _STOPPING
    if found := explain_life(task):
        return found
    reasons = [container.get("reason", "") for container in task.get("containers", [])]
    for reason in filter(_RETRIED.match, reasons):
        cause = explain_reason(f"CannotPull {reason}") or _PULLING
        return Explanation("An image couldn't be pulled yet; that is tried again.", cause.advice)
    pulling = "pullStartedAt" in task and "pullStoppedAt" not in task
    return _PROGRESS.get(task.get("lastStatus", ""), _PULLING if pulling else _STARTING)
