"""What the state and the end of a task mean, in a plain sentence, and what to do about it. Pure.

Source of the reasons: Amazon ECS developer guide, "Amazon ECS stopped task error messages", and
what our own agent reports; of the exit codes: POSIX shells, 128 + signal.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from fargate_agent.cli.shapes import Container, Task

TASK_LOG: Final = "Its log says more: fargate logs {task}"
AGENT_LOG: Final = "Its log says more: {agent_log}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task is as it is."""

    what: str
    advice: str = ""
    """Empty: there is nothing to do."""
    log: str = ""
    """Where more is said, if there is such a log."""


_RETRIED: Final = re.compile(r"try \d+ of \d+: ")
"""How the reason of a container begins whose image is being tried again."""

_REASONS: Final[tuple[tuple[str, Explanation], ...]] = (
    (
        r"not supported here|logging mode not supported",
        Explanation(
            "The task definition asks for what this agent can't do; the reason names it.",
            "Leave that out of the task definition.",
        ),
    ),
    (
        r"does not contain descriptor matching platform|no match for platform",
        Explanation(
            "The image was not built for this machine's processor.",
            "Build it for this platform, or set runtimePlatform.cpuArchitecture to the image's.",
        ),
    ),
    (
        r"the task is for linux/\S+, and this machine runs",
        Explanation(
            "The task is for another processor than this machine has.",
            "Set runtimePlatform.cpuArchitecture to this machine's, and take an image for it.",
        ),
    ),
    (
        r"this machine has no AWS keys",
        Explanation(
            "The agent has no AWS keys to assume the task's execution role with.",
            "Set aws_credentials_file in the agent's settings; for a local stack without STS also"
            " assume_roles = false and aws_endpoint_url. Or use another log driver than awslogs.",
        ),
    ),
    (
        r"NoCredentialProviders",
        Explanation(
            "There are no AWS keys for the log driver: the task definition has no execution role.",
            "Set executionRoleArn in the task definition, and aws_credentials_file in the agent's"
            " settings. Or use another log driver than awslogs.",
        ),
    ),
    (
        r"no space left on device",
        Explanation(
            "The disk of the machine is full.",
            "Make room (fargate images prune), or give the state directory more.",
        ),
    ),
    (
        r"CannotPull.*\b(401|403)\b|CannotPull.*(unauthorized|authorization failed|denied)",
        Explanation(
            "The registry doesn't let the task have the image, or there is no such image.",
            "Check the name of the image and the credentials for the registry.",
        ),
    ),
    (
        r"CannotPull.*(not found|\b404\b|manifest unknown)",
        Explanation(
            "There is no such image in the registry.",
            "Check name and tag in the task definition, or load it: fargate images load FILE.",
        ),
    ),
    (
        r"CannotPull.*(insecure registry|server gave HTTP)",
        Explanation(
            "The registry has no TLS. The agent uses such a registry only if it is listed.",
            "List it in the agent's setting insecure_registries, as the reason names it, and"
            " restart the agent.",
        ),
    ),
    (
        r"CannotPull.*signed by unknown authority",
        Explanation(
            "The certificate of the registry is signed by an authority that this machine doesn't"
            " trust.",
            "If it is your own: put its certificate into /usr/local/share/ca-certificates, run"
            " update-ca-certificates, and restart the agent.",
        ),
    ),
    (
        r"CannotPull.*(x509|certificate|tls:)",
        Explanation(
            "No TLS connection to the registry can be made; the reason says why.",
            "Check the registry's certificate: its names, its dates; and this machine's clock.",
        ),
    ),
    (
        r"CannotPull.*(\b429\b|toomanyrequests)",
        Explanation(
            "The registry limits how often it is asked.",
            "Wait as long as it says, or log in: the agent's setting registry_auth_file.",
        ),
    ),
    (
        r"CannotPull.*(no such host|time-?out|timed out|refused|reachable|deadline|Cannot connect)",
        Explanation(
            "The registry can't be reached through the task's network interface.",
            "Check DNS and the way out of the task's subnet, or load the image:"
            " fargate images load FILE.",
        ),
    ),
    (
        r"CannotPull",
        Explanation(
            "An image couldn't be pulled; the reason says how far it got.",
            "Check image and registry, or load the image: fargate images load FILE.",
        ),
    ),
    (
        r"address \S+ is already in use",
        Explanation(
            "Another machine on the subnet has the task's address.",
            "Find that machine by the MAC address in the reason, or give the VPC another range.",
        ),
    ),
    (
        r"exec format error",
        Explanation(
            "The program was built for another processor, or is a script without #! line.",
            "Build the image for this platform, or name the script's interpreter in entryPoint.",
        ),
    ),
    (
        r"executable file not found|no such file or directory.*exec|exec.*no such file",
        Explanation(
            "The program that entryPoint or command names isn't in the image.",
            "Check entryPoint and command (each word is an item of the list), and $PATH.",
        ),
    ),
    (
        r"CannotStart.*permission denied",
        Explanation(
            "The program in the image may not be executed by the container's user.",
            "Set its execute bit in the image, or the user of the container.",
        ),
    ),
    (
        r"secrets|ecr registry auth|execution resource retrieval",
        Explanation(
            "A secret or the credentials for a registry couldn't be had.",
            "Check valueFrom of the secrets, the execution role, and the network.",
        ),
    ),
    (
        r"TaskDependencyError|container ordering dependency",
        Explanation(
            "A container waited for another (dependsOn) that never got as it should.",
            "See that container's exit code; check startTimeout.",
            TASK_LOG,
        ),
    ),
    (
        r"[Tt]imeout waiting for|ContainerRuntimeTimeoutError",
        Explanation(
            "A step of the start took too long.",
            "See fargate doctor and the load of the machine, and run the task again.",
        ),
    ),
    (
        r"Capacity is unavailable|RESOURCE:",
        Explanation(
            "No agent had room for the task.",
            "Stop other tasks, ask for less cpu and memory, or add a machine.",
        ),
    ),
    (
        r"unable to assume the role",
        Explanation(
            "A role of the task can't be assumed.",
            "Check the role's trust policy.",
        ),
    ),
    (
        r"restarted|rebooted|reboot",
        Explanation(
            "The machine was restarted while the task ran; tasks don't survive that.",
            "Run the task again; a service does so by itself.",
        ),
    ),
    (
        r"InternalError|UnrecogniedTaskError",
        Explanation(
            "The agent failed, not the task.",
            "See fargate doctor.",
            AGENT_LOG,
        ),
    ),
    (
        r"ResourceInitializationError",
        Explanation(
            "Network, volumes or logs of the task couldn't be set up; the reason says what.",
            "See fargate doctor.",
        ),
    ),
)
"""Patterns of reasons, the more exact ones first."""

_CODES: Final = {
    0: Explanation(
        "Container {} did its work and ended with exit code 0.",
        "If it should go on: its first process must not end, nor go to the background.",
    ),
    125: Explanation("Container {} ended with exit code 125.", log=TASK_LOG),
    126: Explanation(
        "Container {} found its program, but may not execute it (exit code 126).",
        "Set the execute bit in the image, or name the interpreter in entryPoint.",
    ),
    127: Explanation(
        "Container {} looked for a program that isn't in the image (exit code 127).",
        "Check entryPoint, command and $PATH.",
        "The log names the program: fargate logs {task}",
    ),
    132: Explanation(
        "Container {} used an instruction that this processor lacks (SIGILL, exit code 132).",
        "Build the image for this machine's processor.",
    ),
    134: Explanation(
        "Container {} gave up by itself (SIGABRT, exit code 134): a failed assertion, say.",
        log=TASK_LOG,
    ),
    137: Explanation(
        "Container {} was killed (SIGKILL, exit code 137), but not for its memory.",
        "If it was asked to stop: it must end on SIGTERM within its stopTimeout.",
    ),
    139: Explanation(
        "Container {} crashed: it used memory that isn't its own (SIGSEGV, exit code 139).",
        "Look for a bug in the program or its native libraries.",
        TASK_LOG,
    ),
    143: Explanation(
        "Container {} ended because it was asked to (SIGTERM, exit code 143).",
        "Something inside the task sent it the signal.",
    ),
    255: Explanation(
        "Container {} ended with exit code 255: a failure, or its exit was not seen.",
        log=TASK_LOG,
    ),
}
_OTHER_CODE: Final = Explanation("Container {} failed with exit code {code}.", log=TASK_LOG)
_OOM: Final = Explanation(
    "Container {} used more memory than it may have, and the kernel killed it.",
    "Give the container or the task more memory, or let the program use less.",
)
_AFTER_STOP: Final = frozenset({137, 143})
"""How containers end that are stopped because another one has ended."""

_STOP_CODES: Final = {
    "UserInitiated": Explanation("Somebody asked for its end."),
    "SpotInterruption": Explanation("Its spot capacity was taken back.", "Run it again."),
    "TerminationNotice": Explanation("The machine below it was retired.", "Run it again."),
    "InfrastructureHealth": Explanation("The machine below it failed.", "Run it again."),
}
_HEALTH: Final = Explanation(
    "The service replaced it because it was not healthy.",
    "See the container's health check.",
    TASK_LOG,
)
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
_NOT_STARTED: Final = Explanation(
    "It failed before it ran; the reason above says at what.", "See fargate doctor."
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
        return _HEALTH if "health check" in task.get("stoppedReason", "") else _SCHEDULER
    if code == "EssentialContainerExited" and (container := _find_culprit(task)):
        return _explain_exit(container)
    reasons = [task.get("stoppedReason", "")]
    reasons += [container.get("reason", "") for container in task.get("containers", [])]
    return next((found for reason in reasons if (found := _find_cause(reason))), _NOT_STARTED)


def _find_cause(reason: str) -> Explanation | None:
    for pattern, explanation in _REASONS:
        if re.search(pattern, reason, re.DOTALL):
            return explanation
    return None


def _find_culprit(task: Task) -> Container | None:
    """The container whose end most likely ended the task; the answer doesn't name essential ones.

    Those that were only stopped along with it come last.
    """
    ended = [container for container in task.get("containers", []) if "exitCode" in container]

    def rank(container: Container) -> int:
        if _is_oom(container):
            return 0
        if container["exitCode"] in _AFTER_STOP:
            return 3
        return 2 if container["exitCode"] == 0 else 1

    return min(ended, key=rank, default=None)


def _explain_exit(container: Container) -> Explanation:
    code = container["exitCode"]
    found = _OOM if _is_oom(container) else _CODES.get(code, _OTHER_CODE)
    what = found.what.replace("{}", container["name"]).replace("{code}", str(code))
    return replace(found, what=what)


def _is_oom(container: Container) -> bool:
    return container.get("reason", "").startswith("OutOfMemoryError")


def is_pulling(task: Task) -> bool:
    """Whether the task waits for its images."""
    return task.get("lastStatus") == "PENDING" and "pullStoppedAt" not in task


def _explain_progress(task: Task) -> Explanation:
    if task.get("connectivity") == "DISCONNECTED":
        return _DISCONNECTED
    if task.get("desiredStatus") == "STOPPED":
        return _STOPPING
    reasons = [container.get("reason", "") for container in task.get("containers", [])]
    for reason in filter(_RETRIED.match, reasons):
        cause = _find_cause(f"CannotPull {reason}") or _PULLING
        return Explanation("An image couldn't be pulled yet; that is tried again.", cause.advice)
    pulling = "pullStartedAt" in task and "pullStoppedAt" not in task
    return _PROGRESS.get(task.get("lastStatus", ""), _PULLING if pulling else _STARTING)
