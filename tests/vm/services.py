"""The services: stopped, killed, hung and misled while a task goes on."""

from functools import partial
from typing import Final

from tests.vm.lab import PATIENCE_S, Lab, Progress, definition, require
from tests.vm.tasks import (
    STEADY,
    check_cpu_limit,
    check_memory_limits,
    require_steady,
    require_whole_log,
)

AGENT: Final = "fargate-agent.service"
CONTROL_PLANE: Final = "fargate-control-plane.service"

WATCHDOG_S: Final = 15
"""In place of the unit's, so that nobody waits for long."""

_DROP_IN: Final = f"/run/systemd/system/{AGENT}.d/vm.conf"
_SETTINGS: Final = "/etc/fargate/agent.toml"
_CONTROL_PLANE_SETTINGS: Final = "/etc/fargate/control-plane.toml"


def check_services(lab: Lab, progress: Progress) -> None:
    """They are up, and say so."""
    with progress.check("both services are active, and nothing else has failed"):
        for unit in (AGENT, CONTROL_PLANE, "containerd.service"):
            require(lab.show_unit(unit, "ActiveState") == "active", f"{unit} is not active")
        require(not lab.sh("systemctl --failed --plain --no-legend"), "a unit has failed")
        require(lab.show_unit(CONTROL_PLANE, "User") == "fargate-control-plane", "user")
        pid = lab.show_unit(CONTROL_PLANE, "MainPID")
        status = lab.sh(f"grep -E '^(Uid|Cap(Prm|Eff|Bnd)):' /proc/{pid}/status")
        require("Uid:\t0" not in status, f"the control plane runs as root: {status}")
        require("1" not in status.split("CapPrm:")[1], f"capabilities: {status}")


def check_settings(lab: Lab, progress: Progress) -> None:
    """A wrong settings file is told in one line, and harms nobody that runs."""
    with progress.check("a wrong key in agent.toml: reload fails, the agent goes on") as note:
        lab.sh(f"cp -p {_SETTINGS} /root/agent.toml && echo 'regoin = \"x\"' >>{_SETTINGS}")
        line = lab.sh(f"wc -l <{_SETTINGS}")
        said = lab.fails("fargate-agent --check")
        note(said)
        require(f"{_SETTINGS}:{line}:" in said and "regoin" in said, f"said: {said}")
        require(len(said.splitlines()) == 1, f"more than a line: {said}")
        lab.fails(f"systemctl reload {AGENT}")
        require(lab.show_unit(AGENT, "ActiveState") == "active", "the agent has ended")
    with progress.check("services with such files fail at once, and are not tried again"):
        lab.sh(
            f"cp -p {_CONTROL_PLANE_SETTINGS} /root && "
            f"echo 'regoin = \"x\"' >>{_CONTROL_PLANE_SETTINGS}"
        )
        lab.side_by_side(
            partial(_require_refused, lab, AGENT, _SETTINGS),
            partial(_require_refused, lab, CONTROL_PLANE, _CONTROL_PLANE_SETTINGS),
        )
        lab.sh(
            f"cp -p /root/control-plane.toml {_CONTROL_PLANE_SETTINGS} && "
            f"systemctl start {CONTROL_PLANE}"
        )


def _require_refused(lab: Lab, unit: str, settings: str) -> None:
    """A service doesn't start with a file whose last line has a key that nobody knows."""
    line = lab.sh(f"wc -l <{settings}")
    lab.fails(f"systemctl restart {unit}")
    require(lab.show_unit(unit, "ActiveState") == "failed", f"{unit} hasn't failed")
    require(lab.show_unit(unit, "ExecMainStatus") == "78", f"{unit}: exit status")
    require(lab.show_unit(unit, "NRestarts") == "0", f"{unit} was tried again")
    invocation = lab.show_unit(unit, "InvocationID")
    said = lab.sh(
        f"journalctl --sync && journalctl -b _SYSTEMD_INVOCATION_ID={invocation} --output cat"
    )
    require(f"{settings}:{line}: regoin" in said, f"{unit}: {said}")
    require(len(said.splitlines()) == 1, f"{unit}: more than a line: {said}")


def check_restarts(lab: Lab, progress: Progress) -> None:
    """The agent comes back in every way there is; the task doesn't notice."""
    with progress.check("systemctl start with right settings: the task has gone on"):
        lab.sh(
            f"mkdir -p $(dirname {_DROP_IN}) && "
            f"printf '[Service]\\nWatchdogSec={WATCHDOG_S}\\n' >{_DROP_IN} && "
            f"sed '1i cgroup_driver = \"cgroupfs\"' /root/agent.toml >{_SETTINGS} && "
            f"systemctl daemon-reload && systemctl start {AGENT}"
        )
        require_steady(lab)
    lab.side_by_side(
        partial(check_memory_limits, lab, progress, how=_WITH_CGROUPFS),
        partial(check_cpu_limit, lab, progress, how=_WITH_CGROUPFS),
    )
    with progress.check("reload with right settings, while the task runs"):
        pid = lab.show_unit(AGENT, "MainPID")
        lab.sh(f"cp -p /root/agent.toml {_SETTINGS} && systemctl reload {AGENT}")
        lab.wait_for(f"[ $(systemctl show -P ActiveState {AGENT}) = active ]")
        require(lab.show_unit(AGENT, "MainPID") == pid, "reload has started another process")
        require_steady(lab)
    _check_killed(lab, progress)
    with progress.check("an agent that hangs: the watchdog ends it") as note:
        pid = lab.show_unit(AGENT, "MainPID")
        lab.sh(f"kill -STOP {pid}")
        lab.wait_for(
            f"[ $(systemctl show -P MainPID {AGENT}) != {pid} ] && systemctl is-active -q {AGENT}"
        )
        journal = lab.sh(f"journalctl -b -u {AGENT} -g 'Watchdog timeout' --output cat | tail -n 1")
        require("Watchdog timeout" in journal, "the journal has no watchdog")
        note(journal)
        lab.sh(f"rm {_DROP_IN} && systemctl daemon-reload")
        require_steady(lab)
    with progress.check("systemctl restart containerd while the task runs"):
        lab.sh("systemctl restart containerd.service")
        require_steady(lab)


def _check_killed(lab: Lab, progress: Progress) -> None:
    with progress.check("SIGKILL for the agent, and no containerd: the next one waits") as note:
        pid = lab.show_unit(AGENT, "MainPID")
        lab.sh(f"systemctl mask --quiet --runtime --now containerd.service && kill -KILL {pid}")
        note(lab.wait_for(f"systemctl show -P StatusText {AGENT} | grep 'waiting for containerd'"))
        require(lab.show_unit(AGENT, "ActiveState") == "activating", "ready without containerd")
        lab.sh(
            "systemctl unmask --quiet --runtime containerd.service && "
            "systemctl start containerd.service"
        )
        lab.wait_for(f"systemctl is-active -q {AGENT}")
        require_steady(lab)


_WITH_CGROUPFS: Final = ", with cgroupfs too"


def check_second_agent(lab: Lab, progress: Progress) -> None:
    """Two agents on one machine by mistake."""
    with progress.check("a second agent refuses to start"):
        said = lab.fails(
            "FARGATE_AGENT_STATE_DIR=/tmp/second FARGATE_AGENT_SOCKET=/tmp/second.sock "
            f"timeout {PATIENCE_S} fargate-agent 2>&1"
        )
        require("another agent" in said.splitlines()[-1], f"said: {said}")


def check_journal(lab: Lab, progress: Progress, container: str) -> None:
    """The journal can be asked for a task, and for a container, which has ended."""
    with progress.check("journalctl FARGATE_TASK=… FARGATE_CONTAINER=… has the lines of one"):
        lines = lab.sh(f"journalctl -b FARGATE_TASK={lab.ids[STEADY]} -u {AGENT} --output cat")
        require(lines, "no line of the task")
        lines = lab.sh(f"journalctl -b FARGATE_CONTAINER={container} -u {AGENT} --output cat")
        require(f"container {container} ended" in lines, f"lines of the container: {lines}")


def check_log(lab: Lab, progress: Progress) -> None:
    """The logger has lost nothing, whatever happened to agent, containerd and disks."""
    with progress.check("the log of the task has each line once") as note:
        note(f"{require_whole_log(lab)} lost to the full disk, and reported")


def check_full_disks(lab: Lab, progress: Progress) -> None:
    """A full disk is a reason, not a catastrophe."""
    path = lab.put(definition("hello", "echo hello; exit 5"))
    for name, fill, clear, reason in _FULL_DISKS:
        with progress.check(
            f"a task on a machine whose {name} is full: a reason, and no harm"
        ) as note:
            lab.machine.run(fill)
            done = lab.machine.run(f"fargate run {path} --follow 2>&1")
            lab.sh(clear)
            require(done.code not in {5, 124}, f"exit {done.code}: {done.stdout}")
            require(reason in done.stdout, f"no {reason!r} in: {done.stdout}")
            note(done.stdout.strip().splitlines()[-1][-120:])
            require_steady(lab)


def _fill(file: str) -> str:
    return (
        f"dd if=/dev/zero of={file} bs=64K status=none; "
        f"dd if=/dev/zero of={file} bs=1 oflag=append conv=notrunc status=none"
    )


_TASKS: Final = "/var/lib/fargate-agent/tasks"
_FULL_DISKS: Final = (
    (
        "/var",
        # a journal that has to grow would make room by deleting older ones
        f"journalctl --rotate; {_fill('/var/lib/fill')}",
        "rm /var/lib/fill",
        "disk is full",
    ),
    ("/run", _fill("/run/fill"), "rm /run/fill", "no space left in /run"),
    # a disk of the agent alone, or it would never hear of the task: the control plane has none
    (
        _TASKS,
        f"mount -t tmpfs -o nr_inodes=1 full {_TASKS}",
        f"umount {_TASKS}",
        "No space left on device",
    ),
)
"""Place, how it becomes full and empty again, and what the reason has to say."""
