"""`python -m tests.vm`: every check in its order, a line for each; the journal if one fails."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.vm import boots, lifecycle, services, tasks
from tests.vm.image import ensure_base_image
from tests.vm.lab import WEB_PORT, CheckError, Lab, Progress, complain, side_by_side
from tests.vm.machine import OUTSIDE_ADDRESS, Machine, MachineError, Switch, machine
from tests.vm.project import pack_project
from tests.vm.walkthrough import Walkthrough

SUITES: Final = ("bookworm", "trixie")

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
    suite = parser.parse_args().suite
    if os.geteuid() != 0:
        sys.exit("vm-test: this needs root, for a network of its own")
    progress = Progress()
    try:
        with tempfile.TemporaryDirectory(prefix="fargate-vm-test-") as directory:
            _test(suite, Path(directory), progress)
    except (CheckError, MachineError, RuntimeError) as error:
        complain(f"vm-test: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("vm-test: interrupted; nothing is left of it")
    print(f"vm-test: ok ({suite}, {progress.elapsed_s:.0f} s)")


def _test(suite: str, directory: Path, progress: Progress) -> None:
    with progress.check(f"a base image of {suite} with containerd"):
        base = ensure_base_image(suite)
    with progress.check("the checkout, its wheels and an image, packed"):
        archive, image = pack_project(directory, base.python)
    with machine(base, archive) as (made, switch), _outside(switch, directory, image) as access_log:
        lab = Lab(suite=suite, machine=made, switch=switch, access_log=access_log)
        try:
            _go_through(lab, progress)
        except (CheckError, MachineError):
            _show_journal(made)
            raise


def _go_through(lab: Lab, progress: Progress) -> None:
    boots.boot(lab.machine, progress)
    lab.sh("systemctl is-system-running --wait; tar -xf /dev/vdb -C /root")
    before = lifecycle.look(lab)
    walk = Walkthrough(lab, progress)
    walk.go_to("A first task")
    services.check_services(lab, progress)
    lab.sh(_KNOW_THE_REGISTRY)
    lab.sh(_RELAX)
    walk.go_on()
    side_by_side(
        partial(walk.go_to, "On the network of a NIC"),
        partial(tasks.start_steady, lab, progress),
        partial(tasks.check_web_and_client, lab, progress),
        partial(tasks.check_memory_limit, lab, progress),
        partial(tasks.check_cpu_limit, lab, progress),
        partial(tasks.check_loggers, lab, progress),
        partial(services.check_second_agent, lab, progress),
    )
    walk.go_to("Settings")
    side_by_side(
        partial(walk.go_to, "Upgrade"),
        partial(tasks.check_macvlan, lab, progress),
        partial(tasks.check_journald, lab, progress),
        partial(tasks.check_steady, lab, progress),
    )
    services.check_settings(lab, progress)
    services.check_restarts(lab, progress)
    services.check_full_disks(lab, progress)
    lifecycle.bring_next_version(lab)
    walk.go_to("Uninstall")
    lifecycle.check_upgraded(lab, progress)
    services.check_journal(lab, progress)
    boots.check_reboot(lab, progress)
    boots.check_power_cut(lab, progress)
    boots.check_poor_machine(lab, progress)
    walk.go_to_end()
    lifecycle.check_clean(lab, progress, before)


_KNOW_THE_REGISTRY: Final = (
    f"sed -i '1i insecure_registries = [\"{OUTSIDE_ADDRESS}:5000\"]' /etc/fargate/agent.toml"
)
"""Before the first `systemctl reload` of the document."""

_RELAX: Final = "sed -i '1i relaxed_clusters = [\"default\"]' /etc/fargate/control-plane.toml"
"""Before the document restarts the control plane: for log drivers that Fargate hasn't."""


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
