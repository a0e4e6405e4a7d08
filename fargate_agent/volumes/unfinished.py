"""Directories that a kill must not leave with half of what they need.

A directory gets its owner and its mode after it was made, since a umask or a default ACL may take
bits of the mode away. It is made with a mode that says so, and its final mode is the last step.
If a maker was killed, the next one finds the directory and does the same steps again.
"""

import os
from typing import Final

UNFINISHED_MODE: Final = 0o1400
"""Of a directory that is being made: nobody needs such a mode. Its owner can open it, who may be
another user than root on a server of NFS."""


def is_unfinished(found: os.stat_result) -> bool:
    """Whether a directory has yet to get its owner and mode."""
    return found.st_mode & 0o7777 == UNFINISHED_MODE
