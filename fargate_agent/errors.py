"""What can go wrong with an ECS task, in the words its owner will read.

A `TaskError` is the only exception that may leave a driver. Its text reaches `stoppedReason` in
`describe-tasks` unchanged, so it names what failed and never holds a secret.
"""

from typing import Final

MAX_REASON_CHARS: Final = 1024
"""Longest reason the control plane keeps.

Source: amazon-ecs-agent, ecs-agent/api/ecs/client/ecs_client.go, `ecsMaxTaskReasonLength`.
"""


class TaskError(Exception):
    """A task, or one of its containers, cannot go on.

    The class name is the first word of the ECS reason, so a subclass is named exactly as ECS
    documents it.
    """

    def __init__(self, detail: str, *, container: str | None = None) -> None:
        """Record what failed, and in which container if it was only one."""
        super().__init__(detail)
        self.detail = detail
        self.container = container

    @property
    def reason(self) -> str:
        """The text reported to the control plane."""
        return f"{type(self).__name__}: {self.detail}"[:MAX_REASON_CHARS]


class ResourceInitializationError(TaskError):
    """Network, volumes, secrets or log driver could not be prepared."""


class CannotPullContainerError(TaskError):
    """An image could not be resolved, fetched or unpacked."""


class CannotCreateContainerError(TaskError):
    """containerd or runC refused to make the container."""

    image_is_gone = False
    """Whether the image is not unpacked any more, and has to be got anew."""


class CannotStartContainerError(TaskError):
    """The container was made, but its first process could not be started."""


class CannotStopContainerError(TaskError):
    """The container did not end, or could not be removed."""


class ContainerRuntimeError(TaskError):
    """containerd or a shim misbehaved."""


class ContainerRuntimeTimeoutError(TaskError):
    """containerd or a shim took too long."""


class CannotExecError(TaskError):
    """A program could not be started inside a container."""


class ExecTimeoutError(TaskError):
    """A program that was run inside a container did not end within its deadline."""


class TaskDependencyError(TaskError):
    """A container waits for another that will never be as `dependsOn` demands."""


class OutOfMemoryError(TaskError):
    """The kernel killed the container because it used more memory than its limit."""


class OutOfDiskError(TaskError):
    """The disk of the machine was almost full, and the task had filled it most."""


class InternalError(TaskError):
    """The agent is at fault; its log has the traceback."""
