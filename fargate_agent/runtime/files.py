"""The directory of a task, and in its ephemeral volume the files that containers have in /etc.

All functions block.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from fargate_agent.files import replace_file
from fargate_agent.plan import FirelensPlan, TaskPlan
from fargate_agent.runtime.secret_files import ensure_tmpfs, remove_tmpfs
from fargate_agent.runtime.spec import ETC_DIRECTORY, ETC_FILES
from fargate_agent.trees import remove_tree


def make_files(task: TaskPlan, texts: Mapping[str, str]) -> None:
    """Make what isn't there yet; what a container has changed stays as it is.

    Raises:
        OSError: the disk is full, or the like.
        ResourceInitializationError: there can't be a tmpfs for the files of containers.
    """
    etc = task.storage / ETC_DIRECTORY
    etc.mkdir(parents=True, exist_ok=True)
    task.directory.chmod(0o700)
    ensure_tmpfs(task)
    for name in ETC_FILES:
        _write_once(etc / name, texts[name])
    if task.firelens is not None:
        _make_router_files(task.firelens)


def remove_files(task: TaskPlan) -> None:
    """Remove the directory with all that is in it.

    Raises:
        OSError: something can't be removed.
    """
    remove_tmpfs(task.directory)
    remove_tree(task.directory)


def _make_router_files(firelens: FirelensPlan) -> None:
    firelens.socket.parent.mkdir(mode=0o755, exist_ok=True)
    os.chown(firelens.socket.parent, *firelens.socket_owner)
    _write_once(firelens.config, firelens.config_text)


def _write_once(file: Path, text: str) -> None:
    if file.exists():
        return
    replace_file(file, text, mode=0o644, durable=False)
