"""What runC writes into a container's log, without the paths of this machine.

When runC can't make a container, it says so on the stderr that the container would have had. Paths
inside the container stay. The agent has the same rules, in fargate_agent/containerd/host_paths.py;
tests/unit/test_host_paths.py holds both to one table.
"""

RUNC_FAILED = b"runc create failed: "
"""How such a line begins. Source: runc, create.go."""

_PATH = rb"/[^\s\"'`:,]*/"
_ROOTFS = (
    _PATH + rb"(?:"
    rb"io\.containerd\.snapshotter\.[^/\s]+/snapshots/[0-9]+/(?:fs|work)"
    rb"|io\.containerd\.runtime\.[^/\s]+/[^/\s]+/[^/\s]+/rootfs"
    rb"|tmpmounts/containerd-mount[0-9]+"
    rb")(?=/)"
)
_NETNS = _PATH + rb"fargate-[0-9a-f-]+"
_HOST_PATH = _PATH + rb"(?:io\.containerd\.[^\s\"'`:,]*|containerd[^\s\"'`:,]*|runc[^\s\"'`:,]*)"


def without_host_paths(data: bytes, fault_path: str) -> bytes:
    """Return what was read from a pipe, changed only if it is what runC said."""
    return hide_host_paths(data, fault_path) if data.startswith(RUNC_FAILED) else data


def hide_host_paths(text: bytes, fault_path: str) -> bytes:
    """Return the text with paths of the task's directory, containerd and runC left out.

    `fault_path` is the logger's flag: DIRECTORY/log-faults/CONTAINER.
    """
    import re  # 5 ms, which only a container pays that can't be made

    directory = fault_path.rpartition("/")[0].rpartition("/")[0]
    if directory:
        text = text.replace(directory.encode(), b"the task's directory")
    text = re.sub(_ROOTFS, b"", text)
    text = re.sub(_NETNS, b"the task's network namespace", text)
    return re.sub(_HOST_PATH, "…".encode(), text)
