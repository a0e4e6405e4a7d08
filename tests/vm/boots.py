"""Boots: in order, after the power went, and on a machine that lacks much."""

import threading
import time
from typing import Final

from tests.vm.lab import Lab, Progress, definition, require
from tests.vm.machine import Machine, MachineError
from tests.vm.tasks import STEADY, require_no_links, require_nothing_left

KERNEL_OPTIONS: Final = "mitigations=off"

_WITHOUT_NFTABLES: Final = "modprobe.blacklist=nf_tables"
_CGROUP_V1: Final = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
"""Source: kernel-command-line(7)."""

_LAST_WITH_V1: Final = "bookworm"
"""Debian's later kernels have no memory controller for version 1."""

WRONG_CLOCK: Final = "2020-01-01T00:00:00"
"""systemd doesn't believe it, and begins when it was built itself."""
A_MONTH_S: Final = 30 * 24 * 3600

_DRIVER: Final = "journalctl -b -u fargate-agent -g 'bounded by' --output cat | tail -n 1"
_SHIMS: Final = "/run/containerd/io.containerd.runtime.v2.task/fargate"
"""Where containerd's shim works on a container, from the moment that it is being created."""
_BOOTED: Final = "systemctl is-system-running --wait || true"


def boot(machine: Machine, progress: Progress) -> None:
    """The first boot."""
    with progress.check("the machine boots") as note:
        machine.boot(kernel_options=KERNEL_OPTIONS)
        note("kvm" if machine.accelerated else "emulated")


def check_reboot(lab: Lab, progress: Progress) -> None:
    """Tasks of before a reboot are reported, and nothing is left of them."""
    with progress.check("reboot: the services are back"):
        lab.machine.reboot()
        _wait_for_services(lab)
    with progress.check("tasks of before the boot are STOPPED, with a reason") as note:
        note(_require_stopped(lab, lab.ids[STEADY]))
        require_nothing_left(lab, lab.ids[STEADY])
        require_no_links(lab)


def check_power_cut(lab: Lab, progress: Progress) -> None:
    """The power goes while a task starts; then the machine comes up with less than before."""
    with progress.check("the power goes in the middle of a task's start"):
        path = lab.put(definition("unlucky", "sleep 600"))
        threading.Thread(target=_run_and_forget, args=(lab, path), daemon=True).start()
        lab.ids["unlucky"] = lab.wait_for(f"ls {_SHIMS} | grep .").split("-")[0]
        lab.machine.cut_power()
    lacks, options = "no nftables", f"{KERNEL_OPTIONS} {_WITHOUT_NFTABLES}"
    if lab.suite == _LAST_WITH_V1:
        lacks, options = f"cgroup v1 only, {lacks}", f"{options} {_CGROUP_V1}"
    with progress.check(f"boot with {lacks}, and a clock of years ago") as note:
        lab.machine.boot(kernel_options=options, clock=WRONG_CLOCK)
        _wait_for_services(lab)
        behind_s = time.time() - int(lab.sh("date +%s"))
        require(behind_s > A_MONTH_S, f"the clock is only {behind_s:.0f} s behind")
        note(lab.sh(_DRIVER))
    with progress.check("the task whose start was cut off is accounted for") as note:
        note(_require_settled(lab, lab.ids["unlucky"]))
        require_nothing_left(lab, lab.ids["unlucky"])
        require_no_links(lab)


def check_poor_machine(lab: Lab, progress: Progress) -> None:
    """What can be done is done, what can't is said."""
    with progress.check("fargate doctor says what this machine lacks") as note:
        done = lab.machine.run("fargate doctor")
        note(done.stdout.strip().splitlines()[-1][:100])
        require("no nftables" in done.stdout, f"doctor: {done.stdout}{done.stderr}")
    with progress.check("without nftables no task starts") as note:
        code, shown = lab.follow_task(definition("unfiltered", "echo it ran"))
        note(shown.strip().splitlines()[-1][-120:])
        require(code != 0 and "| it ran" not in shown, f"exit {code}: {shown}")
        require("nftables" in shown, f"no reason: {shown}")
    lab.sh("modprobe nf_tables")  # the agent isn't told
    with progress.check("the clock steps by years while a task runs"):
        stepped = time.time() - A_MONTH_S
        script = (
            f"echo up; sleep 5; until [ $(date +%s) -gt {stepped:.0f} ]; do sleep 0.3; done; exit 6"
        )
        task_id = lab.run_task(definition("patient", script))
        lab.wait_for(f"fargate logs {task_id} | grep up")
        lab.sh(f"date -s @{time.time():.0f}")
        found = lab.wait_for(f"fargate describe {task_id} --output json | grep -A1 exitCode")
        require("6" in found, f"exit code: {found}")


def _run_and_forget(lab: Lab, path: str) -> None:
    try:
        lab.machine.run(f"fargate run {path}")
    except MachineError:
        return  # the power went


def _wait_for_services(lab: Lab) -> None:
    lab.sh(_BOOTED)
    for unit in ("fargate-control-plane", "fargate-agent"):
        lab.wait_for(f"systemctl is-active {unit}")


def _require_settled(lab: Lab, task_id: str) -> str:
    """A task whose start was cut off has ended, or was begun again because nobody had taken it."""
    if lab.wait_for_status(task_id, "RUNNING", "STOPPED") == "RUNNING":
        lab.sh(f"fargate stop {task_id} --wait")
        return "the agent had not acknowledged it: it was sent and started again"
    return _require_stopped(lab, task_id)


def _require_stopped(lab: Lab, task_id: str) -> str:
    """Return why the task stopped."""
    lab.wait_for_status(task_id, "STOPPED")
    task = lab.describe(task_id)
    require(task.get("stoppedReason"), f"no reason: {task}")
    return f"{task['stopCode']}: {task['stoppedReason']}"
