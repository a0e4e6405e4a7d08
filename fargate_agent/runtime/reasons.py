"""What containerd and runC said, in words for the owner of the task.

Their texts stay as they are, because people search for them; what the host is made of is left out.
"""

import re
from typing import Final

from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotStartContainerError,
    CannotStopContainerError,
    ContainerRuntimeError,
    ContainerRuntimeTimeoutError,
    TaskError,
)
from fargate_agent.plan import ContainerPlan, TaskPlan

_LOGGER: Final = re.compile(r"fork/exec [^\s:]+")
"""How containerd says that it couldn't start a container's logger."""

_NO_PROGRAM: Final = re.compile(r"exec: \"|exec \S+: |exec format error|executable file `")
"""How runC and crun say that there is no such program in the image, or that it can't be run.

Source: runc, libcontainer/standard_init_linux.go; crun, src/libcrun/container.c.
"""

_NO_SHIM: Final = "ttrpc: closed"
"""What containerd says of a shim that has ended. Source: ttrpc, client.go, `ErrClosed`."""

_SYSCTL: Final = re.compile(r"/proc/sys/([^\s:`]+)`?: ([\w ]+)")
"""How runC and crun say which kernel parameter they could not set, and why.

Source: runc, libcontainer/standard_init_linux.go; crun, src/libcrun/linux.c.
"""


def explain(error: Exception) -> str:
    """Return what went wrong, whoever said it: of an error of the kernel, not the path."""
    match error:
        case ContainerdError():
            return render_error(error)
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error)


def render_error(error: ContainerdError, task: TaskPlan | None = None) -> str:
    """Return what the other side said, without the name of our call and without our paths."""
    _, _, text = str(error).partition(": ")
    if task:
        text = text.replace(str(task.netns), "the task's network namespace")
        text = text.replace(str(task.directory), "the task's directory")
    text = _LOGGER.sub("start the container's logger", text)
    return hide_host_paths(text)


def explain_create(
    error: ContainerdError, task: TaskPlan, container: ContainerPlan
) -> CannotCreateContainerError | CannotStartContainerError:
    """Return the task error for a container that could not be made."""
    text = render_error(error, task)
    if (found := _SYSCTL.search(text)) and container.sysctls:
        text = _explain_sysctl(container, found[1], found[2])
    if _NO_PROGRAM.search(text):
        return CannotStartContainerError(text, container=container.name)
    return CannotCreateContainerError(text, container=container.name)


def _explain_sysctl(container: ContainerPlan, path: str, why: str) -> str:
    """Name the parameter as the definition does; two spellings may stand for one file."""
    names = (name for name in container.sysctls if name.replace(".", "/") == path)
    name = next(names, path.replace("/", "."))
    return f"unable to set the kernel parameter {name}: {why.lower()}"


def explain_loss(error: ContainerdError, container: ContainerPlan) -> ContainerRuntimeError:
    """Return the task error for a container that has ended, nobody knows how."""
    text = render_error(error)
    why = "its shim was killed" if text.startswith(_NO_SHIM) else text
    return ContainerRuntimeError(
        f"nobody knows how the container ended: {why}", container=container.name
    )


def explain_stop(error: Exception, container: ContainerPlan) -> CannotStopContainerError:
    """Return the task error for a container that could not be ended in the ordinary way.

    Source: ECS developer guide, stopped task error messages; whatever the signal really is.
    """
    return CannotStopContainerError(
        f"failed sending SIGTERM to container: {explain(error)}", container=container.name
    )


def explain_timeout(status: str, deadline_s: float, container: ContainerPlan) -> TaskError:
    """Return the task error for a container that did not get to a status in time."""
    return ContainerRuntimeTimeoutError(
        f"Could not transition to {status}; timed out after waiting {render_duration(deadline_s)}",
        container=container.name,
    )


def render_duration(seconds: float) -> str:
    """Write a duration as Go does, which is how ECS writes it: `4m0s`, `1h0m0s`, `1.5s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
