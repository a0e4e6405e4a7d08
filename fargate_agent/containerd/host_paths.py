"""What containerd and runC say, without the paths of this machine.

Paths inside an image or a container stay: they are what its owner knows. The loggers, which import
nothing of this package, have the same rules in shim-loggers/reading/host_paths.py, for what runC
writes into a container's log. tests/unit/test_host_paths.py holds both to one table.
"""

import re
from typing import Final

_PATH: Final = r"/[^\s\"'`:,]*/"

_ROOTFS: Final = re.compile(
    _PATH + r"(?:"
    r"io\.containerd\.snapshotter\.[^/\s]+/snapshots/[0-9]+/(?:fs|work)"
    r"|io\.containerd\.runtime\.[^/\s]+/[^/\s]+/[^/\s]+/rootfs"
    r"|tmpmounts/containerd-mount[0-9]+"
    r")(?=/)"
)
"""Where the root of an image or a container lies on this machine, before a path within it.

Source: containerd, snapshots/overlay/overlay.go, runtime/v2/bundle.go, mount/temp.go.
"""

_NETNS: Final = re.compile(_PATH + r"fargate-[0-9a-f-]+")

_HOST_PATH: Final = re.compile(
    _PATH + r"(?:io\.containerd\.[^\s\"'`:,]*|containerd[^\s\"'`:,]*|runc[^\s\"'`:,]*)"
)
"""Bundles, snapshots, sockets and logs of containerd and runC, wherever its root is."""


def hide_host_paths(text: str) -> str:
    """Return the text with paths of containerd, runC and network namespaces left out."""
    text = _ROOTFS.sub("", text)
    text = _NETNS.sub("the task's network namespace", text)
    return _HOST_PATH.sub("…", text)
