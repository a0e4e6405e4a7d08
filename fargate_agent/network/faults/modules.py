"""What of the kernel impairments are made of."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MODULES: Final = ("sch_prio", "sch_netem")


def can_impair(root: Path) -> bool:
    """Whether the kernel has loaded what is needed, or lists it among its modules; blocks.

    A kernel that says nothing is taken to have nothing.
    """
    modules = root / "lib/modules" / os.uname().release
    texts = []
    for listing in ("modules.builtin", "modules.dep"):
        with suppress(OSError):
            texts.append((modules / listing).read_text())
    return all(
        (root / "sys/module" / name).exists() or any(f"/{name}.ko" in text for text in texts)
        for name in MODULES
    )
