"""`python -m tests.vm`: journeys of machines side by side, a line for each check.

The first check that fails ends it, with the machine's journal.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.vm.image import ensure_base_image
from tests.vm.journeys import JOURNEYS, WHOLE
from tests.vm.lab import WEB_PORT, CheckError, Lab, Progress, complain, require
from tests.vm.machine import (
    OUTSIDE_ADDRESS,
    Machine,
    MachineError,
    Switch,
    machine,
    scratch,
    sweep_stale,
)
from tests.vm.project import ARCHIVE, IMAGE_ARCHIVE, pack_project

SUITES: Final = ("bookworm", "trixie")
POLL_S: Final = 0.5

_END_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")

_REGISTRY: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "{address}:5000"}}
"""


def main() -> None:
    """Run the test; exit 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="default: %(default)s")
    parser.add_argument("--journey", choices=JOURNEYS, help=f"default: {' and '.join(WHOLE)}")
    parser.add_argument("--packed", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("vm-test: this needs root, for a network of its own")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if asked.packed:
            _travel(asked.suite, asked.journey, asked.packed)
        else:
            _test(asked.suite, [asked.journey] if asked.journey else [*WHOLE])
    except (CheckError, MachineError, RuntimeError) as error:
        sys.exit(f"vm-test: {asked.journey or 'stopped'}: {error}")
    except KeyboardInterrupt:
        sys.exit(1 if asked.packed else "vm-test: interrupted; nothing is left of it")


def _test(suite: str, journeys: list[str]) -> None:
    """Prepare what the machines need, and have every journey done by a process of its own."""
    begun, progress = time.monotonic(), Progress("both" if len(journeys) > 1 else journeys[0])
    sweep_stale()
    with scratch() as directory:
        with progress.check(f"a base image of {suite} with containerd"):
            base = ensure_base_image(suite)
        with progress.check("the checkout, its wheels and an image, packed"):
            pack_project(directory, base.python)
        with _travellers(suite, journeys, directory) as travellers:
            _wait_for_all(travellers)
    print(f"vm-test: ok ({suite}, {time.monotonic() - begun:.0f} s)")


@contextmanager
def _travellers(
    suite: str, journeys: list[str], directory: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process for each journey; one that still runs at the end is interrupted."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for journey in journeys:
            options = ("--suite", suite, "--journey", journey, "--packed", str(directory))
            started.append(
                subprocess.Popen(
                    [*_END_WITH_US, sys.executable, "-m", "tests.vm", *options],
                    start_new_session=True,  # Ctrl-C comes from here, once
                )
            )
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process in started:
            process.wait()


def _wait_for_all(travellers: list[subprocess.Popen[bytes]]) -> None:
    """Raise `CheckError` as soon as one has failed, which has said why."""
    while True:
        codes = [process.poll() for process in travellers]
        require(not any(codes), "a check failed")
        if None not in codes:
            return
        time.sleep(POLL_S)


def _travel(suite: str, journey: str, packed: Path) -> None:
    """Do one journey, with a machine of its own; tell how it went.

    Raises:
        CheckError: a check failed.
        MachineError: the machine did.
    """
    base = ensure_base_image(suite)
    with (
        scratch() as directory,
        machine(base, packed / ARCHIVE) as (made, switch),
        _outside(switch, directory, packed / IMAGE_ARCHIVE) as access_log,
    ):
        lab = Lab(suite=suite, machine=made, switch=switch, access_log=access_log)
        try:
            JOURNEYS[journey](lab, Progress(journey))
        except (CheckError, MachineError):
            _show_journal(made)
            raise


@contextmanager
def _outside(switch: Switch, directory: Path, image: Path) -> Iterator[Path]:
    """A registry with the image, and a web server whose log says who asked, outside the machine."""
    settings, access_log = directory / "registry.yml", directory / "access.log"
    storage = directory / "registry"
    settings.write_text(_REGISTRY.format(directory=storage, address=OUTSIDE_ADDRESS))
    (directory / "www").mkdir()
    (directory / "www/from-macvlan").write_text("hello from outside\n")
    with (
        switch.serve("docker-registry", "serve", str(settings), log=directory / "registry.log"),
        switch.serve(
            sys.executable, "-u", "-m", "http.server", "-d", str(directory / "www"), str(WEB_PORT),
            log=access_log,
        ),
    ):  # fmt: skip
        switch.run(
            "skopeo", "copy", "-q", "--retry-times", "5", "--dest-tls-verify=false",
            f"oci-archive:{image}", f"docker://{OUTSIDE_ADDRESS}:5000/busybox:1",
        )  # fmt: skip
        yield access_log


def _show_journal(made: Machine) -> None:
    try:
        complain(made.run("journalctl -b --no-pager -n 200", timeout_s=30).stdout)
    except (MachineError, OSError, subprocess.SubprocessError):
        complain(made.console.read_text(errors="replace")[-8000:])


if __name__ == "__main__":
    main()
