"""The users of images, each image looked into once: the same image always has the same files.

A file that isn't there is looked for again: containerd may have been removing the layers just then.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from fargate_agent.containerd.types import Mount
from fargate_agent.runtime.rootfs import read_files
from fargate_agent.runtime.users import UserFiles

_KNOWN_IMAGES: Final = 256
"""Images whose users are remembered, some kilobytes each."""

_USERS_FILE: Final = "/etc/passwd"
_GROUPS_FILE: Final = "/etc/group"


class KnownUsers:
    """Reads and remembers them."""

    def __init__(self) -> None:
        self._known: dict[str, UserFiles] = {}
        """By the chain id of the image."""

    async def read(
        self,
        chain_id: str,
        look: Callable[[], Coroutine[Any, Any, tuple[Mount, ...]]],
        mountpoint: Path,
    ) -> UserFiles:
        """Return the user database of an image; see `read_files` for `mountpoint` and errors.

        `look` returns how the image is mounted, and is called only if the image isn't known.
        """
        known = self._known.get(chain_id)
        if known is None:
            texts = await read_files(await look(), mountpoint, (_USERS_FILE, _GROUPS_FILE))
            known = UserFiles(passwd=texts[_USERS_FILE], group=texts[_GROUPS_FILE])
            if all(texts.values()):
                if len(self._known) >= _KNOWN_IMAGES:
                    self._known.clear()
                self._known[chain_id] = known
        return known
