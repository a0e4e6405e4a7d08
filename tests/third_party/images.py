"""Images with programs that others wrote, made of what this machine and `install` have.

One image has Python and its packages, the other Node and its own. Both hold `inside/`.
"""

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.fixtures.images import BuiltImage, build_image, make_layer
from tests.fixtures.programs import leave_out
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import REGISTRY

HERE: Final = Path(__file__).parent
CHECKOUT: Final = HERE.parents[1]
INSTALLED: Final = CHECKOUT / "build/third-party"
NODE: Final = INSTALLED / "node/bin/node"
DEADLINE_S: Final = 60

PYTHON: Final = f"{REGISTRY}/third-party:python"
PLAIN: Final = f"{REGISTRY}/third-party:plain"
JAVASCRIPT: Final = f"{REGISTRY}/third-party:javascript"

_NOT_RUN: Final = {"test", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "include"}
"""Parts of Python's library, and of Node's packages, that none of the programs loads."""
_BOTOCORE_SERVICES: Final = {"sts", "xray"}
"""Whose models some program reads; all of them take 25 MB."""


def add_images(registry: FakeRegistry) -> None:
    """Give a registry both images."""
    if not (INSTALLED / "stamp").exists():
        leave_out("`make third-party` has not fetched the programs")
    registry.add("third-party", "python", _build_python())
    registry.add("third-party", "javascript", _build_javascript())


def add_plain_python(registry: FakeRegistry) -> None:
    """Give a registry the image that has Python alone, which needs nothing that is fetched."""
    registry.add("third-party", "plain", _build_plain_python())


def plain_python(name: str, program: str) -> dict[str, Any]:
    """Return an essential container that runs one of the programs of `inside/`."""
    command = ["python", "-B", f"/inside/{program}"]
    return {**_container(name, PLAIN, command, {}), "essential": True}


def python(name: str, program: str, **environment: str) -> dict[str, Any]:
    """Return a container that runs one of the programs of `inside/`."""
    return _container(name, PYTHON, ["python", "-B", f"/inside/{program}"], environment)


def javascript(name: str, program: str, **environment: str) -> dict[str, Any]:
    """Return a container that runs one of the programs of `inside/`."""
    return _container(name, JAVASCRIPT, ["node", f"/inside/{program}"], environment)


def _container(
    name: str, image: str, command: list[str], environment: dict[str, str]
) -> dict[str, Any]:
    variables = [{"name": key, "value": value} for key, value in environment.items()]
    return {
        "name": name,
        "image": image,
        "command": command,
        "environment": variables,
        "essential": False,
        "stopTimeout": 2,
    }


def _build_plain_python() -> BuiltImage:
    """Build the image that has this machine's Python and its library."""
    return _build(_plain_python(), ["PATH=/bin", "PYTHONHOME=/opt/python"])


def _plain_python() -> dict[str, Path]:
    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    return {
        "bin/python": program,
        **_libraries(program, *library.rglob("*.so")),
        **_below(library, f"opt/python/lib/{library.name}"),
    }


def _build_python() -> BuiltImage:
    """Build the image whose `python` runs the packages of `python.txt`."""
    packages = INSTALLED / "python"
    files = {
        **_plain_python(),
        **_libraries(NODE, *packages.rglob("*.so")),  # Node's has what glibc ends a thread with
        **_below(packages, "opt/packages"),
    }
    return _build(files, ["PATH=/bin", "PYTHONHOME=/opt/python", "PYTHONPATH=/opt/packages"])


def _build_javascript() -> BuiltImage:
    """Build the image whose `node` finds the packages of `package-lock.json`."""
    files = {
        "bin/node": NODE,
        **_libraries(NODE),
        **_below(INSTALLED / "javascript/node_modules", "inside/node_modules"),
    }
    return _build(files, ["PATH=/bin"])


def _build(files: dict[str, Path], environment: list[str]) -> BuiltImage:
    files = {name: path for name, path in files.items() if _is_needed(name)}
    ours = {f"inside/{path.name}": path for path in (HERE / "inside").iterdir() if path.is_file()}
    ours["tmp/python.txt"] = HERE / "python.txt"  # for the directory
    layers = [{name: path.read_bytes() for name, path in some.items()} for some in (files, ours)]
    return build_image(
        [make_layer(layer) for layer in layers], packing="plain", run={"Env": environment}
    )


def _below(directory: Path, name: str) -> dict[str, Path]:
    return {
        f"{name}/{path.relative_to(directory)}": path
        for path in directory.rglob("*")
        if path.is_file()
    }


def _is_needed(name: str) -> bool:
    parts = name.split("/")
    if "__pycache__" in parts or not _NOT_RUN.isdisjoint(parts) or name.endswith((".map", ".ts")):
        return False
    service = re.search(r"/botocore/data/([^/]+)/", name)
    return service is None or service[1] in _BOTOCORE_SERVICES


def _libraries(*programs: Path) -> dict[str, Path]:
    """Return what the loader finds for them, by the name under which it looks."""
    done = subprocess.run(
        ["ldd", *programs], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    return {path.lstrip("/"): Path(path) for path in _paths(done.stdout.splitlines())}


def _paths(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if found := re.search(r"(?:=> |^\t)(/\S+) \(0x", line):
            yield found[1]
