"""What an operator carries to a machine without a network: checkout, wheels and an image."""

import shutil
from pathlib import Path
from typing import Final

from tests.vm.image import run_on_host

CHECKOUT: Final = Path(__file__).resolve().parents[2]
NEXT_VERSION: Final = "0.1.999"
"""Of the checkout that is installed over the first one."""

ARCHIVE: Final = "project.tar"
"""What is carried there, below the directory that it was packed in."""
IMAGE_ARCHIVE: Final = "main/busybox.tar"
"""An image, as an OCI archive."""


def pack_project(directory: Path, python: str) -> None:
    """Make `ARCHIVE` with `main` and `next`, two versions of the checkout, and `IMAGE_ARCHIVE`.

    `python` is the version of the Python that it is for, e.g. `3.11`.
    """
    main, following = directory / "main", directory / "next"
    _copy_checkout(main)  # first: who works in the checkout meanwhile changes nothing here
    wheels = _build_wheels(main, _wheels_of(python), python)
    shutil.copytree(wheels, main / "build/wheels")
    run_on_host(str(main / "examples/busybox-image"), str(directory / IMAGE_ARCHIVE))
    shutil.copytree(main, following, symlinks=True)
    _change_version(following / "fargate_agent/__init__.py")
    _build_wheels(following, following / "build/wheels", python)
    run_on_host(
        "tar", "-C", str(directory), "--owner=0", "--group=0", "-cf", str(directory / ARCHIVE),
        "main", "next",
    )  # fmt: skip


def _copy_checkout(into: Path) -> None:
    """Copy what git knows of or would know of."""
    listing = run_on_host("git", "-C", str(CHECKOUT), "ls-files", "-z", "-co", "--exclude-standard")
    for name in filter(None, listing.split("\0")):
        source, target = CHECKOUT / name, into / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _wheels_of(python: str) -> Path:
    """Return where wheels are kept; those of this machine's Python `make install` may have made."""
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    own = run_on_host("/usr/bin/python3", "-Ic", ask).strip()
    return CHECKOUT / "build" / ("wheels" if python == own else f"wheels-{python}")


def _build_wheels(tree: Path, wheels: Path, python: str) -> Path:
    """`make wheels`, for the machine's Python; what is there already isn't made again."""
    environment = CHECKOUT / "build/env"
    program = tree / "systemd/build-wheels"
    run_on_host(str(program), "/usr/bin/python3", str(wheels), str(environment), python)
    return wheels


def _change_version(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(
        "".join(
            f'__version__ = "{NEXT_VERSION}"\n' if line.startswith("__version__") else line
            for line in lines
        )
    )
