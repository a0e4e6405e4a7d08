"""`python -m tests.mutations`: change one line of the agent at a time; a test must fail each time.

The changes are made in copies, one for each that works at a time. `tests.mutations.catalog` has
them, each with the tests that see it. Exit code 1 if one was not seen.
"""

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutations.catalog import MUTATIONS
from tests.mutations.mutation import Mutation

PROJECT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("fargate_agent", "shim-loggers", "tests", "pyproject.toml")
OPTIONS: Final = ("-q", "-x", "-p", "no:cacheprovider", "--noconftest")
"""No fixture of the project is used, and it takes long to import them."""
DEADLINE_S: Final = 60.0
WORKERS: Final = 2


def main() -> None:
    """Try every mutation, or those whose name has one of the words given."""
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="fargate-mutations-") as directory:
        copies = SimpleQueue[Path]()
        for number in range(WORKERS):
            copies.put(_copy(Path(directory) / str(number)))
        with ThreadPoolExecutor(WORKERS) as pool:
            tried = pool.map(partial(_try_in_one_of, copies), chosen)
            survived = [name for name in tried if name]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations are seen by a test")
    sys.exit(1 if survived else 0)


def _copy(copy: Path) -> Path:
    copy.mkdir()
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy


def _try_in_one_of(copies: "SimpleQueue[Path]", mutation: Mutation) -> str | None:
    copy = copies.get()
    file = copy / mutation.file
    text = file.read_text()
    try:
        _write(file, mutation.apply(text))
        return _try(mutation, copy)
    finally:
        _write(file, text)
        copies.put(copy)


def _write(file: Path, text: str) -> None:
    """What was compiled of the file goes: it is told by second and size only whether it is old."""
    file.write_text(text)
    Path(cache_from_source(str(file))).unlink(missing_ok=True)


def _try(mutation: Mutation, copy: Path) -> str | None:
    """Return the name of a mutation that no test has seen."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *mutation.tests],
        cwd=copy, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    if done.returncode == 1:  # pytest: tests were run, and some failed
        print(f"seen: {mutation.name}", flush=True)
        return None
    print(f"NOT SEEN: {mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return mutation.name


if __name__ == "__main__":
    main()
