"""`python -m tests.mutations`: change one line of the agent at a time; a test must fail each time.

The changes are made in a copy. `tests.mutations.catalog` lists them, each with the tests that see
it. Exit code 1 if one was not seen.
"""

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.mutations.catalog import MUTATIONS, Mutation

PROJECT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("fargate_agent", "shim-loggers", "tests", "pyproject.toml")
DEADLINE_S: Final = 60.0
WORKERS: Final = 2


def main() -> None:
    """Try every mutation, or those whose name has one of the words given."""
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    with ThreadPoolExecutor(WORKERS) as pool:
        survived = [name for name in pool.map(_try, chosen) if name]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations are seen by a test")
    sys.exit(1 if survived else 0)


def _try(mutation: Mutation) -> str | None:
    """Return the name of a mutation that no test has seen."""
    with tempfile.TemporaryDirectory(prefix="fargate-mutation-") as directory:
        copy = Path(directory)
        for name in COPIED:
            source = PROJECT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / name, ignore=ignore)
            else:
                shutil.copy(source, copy / name)
        mutated = copy / mutation.file
        mutated.write_text(mutation.apply(mutated.read_text()))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests],
            cwd=copy, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    if done.returncode == 1:  # pytest: tests were run, and some failed
        print(f"seen: {mutation.name}", flush=True)
        return None
    print(f"NOT SEEN: {mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return mutation.name


if __name__ == "__main__":
    main()
