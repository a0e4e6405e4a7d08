"""What the exit codes of containers mean, and which container ended its task. Pure.

Source of the codes: POSIX shells, 128 + signal.
"""

from dataclasses import replace
from typing import Final

from fargate_agent.cli.clients.shapes import Container, Task
from fargate_agent.cli.why.explanation import TASK_LOG, Explanation

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


def find_culprit(task: Task) -> Container | None:
    """The container whose end most likely ended the task.

    Those that were only stopped along with it come last; those that aren't essential don't count.
    """
    ended = [
        container
        for container in task.get("containers", [])
        if "exitCode" in container and container.get("essential", True)
    ]

    def rank(container: Container) -> int:
        if _is_oom(container):
            return 0
        if container["exitCode"] in _AFTER_STOP:
            return 3
        return 2 if container["exitCode"] == 0 else 1

    return min(ended, key=rank, default=None)


def explain_exit(container: Container) -> Explanation:
    """Say why a container ended; it has an exit code."""
    code = container["exitCode"]
    found = _OOM if _is_oom(container) else _CODES.get(code, _OTHER_CODE)
    what = found.what.replace("{}", container["name"]).replace("{code}", str(code))
    return replace(found, what=what)


def _is_oom(container: Container) -> bool:
    return container.get("reason", "").startswith("OutOfMemoryError")
