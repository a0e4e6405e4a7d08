"""The services: stopped, killed, hung and misled while a task goes on."""

from typing import Final

from tests.vm.lab import Lab, Progress, definition, require
from tests.vm.tasks import check_memory_limit, require_steady, require_whole_log

AGENT: Final = "fargate-agent.service"
CONTROL_PLANE: Final = "fargate-control-plane.service"

WATCHDOG_S: Final = 15
"""In place of the unit's, so that nobody waits for long."""

_DROP_IN: Final = f"/run/systemd/system/{AGENT}.d/vm.conf"
_SETTINGS: Final = "/etc/fargate/agent.toml"


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
    with progress.check("a service with such a file fails at once, and is not tried again"):
        lab.fails(f"systemctl restart {AGENT}")
        require(lab.show_unit(AGENT, "ActiveState") == "failed", "it hasn't failed")
        require(lab.show_unit(AGENT, "ExecMainStatus") == "78", "exit status")
        require(lab.show_unit(AGENT, "NRestarts") == "0", "it was tried again")
        journal = lab.sh(f"journalctl -b -u {AGENT} -n 9 --output cat")
        require(f"{_SETTINGS}:{line}: regoin" in journal, f"journal: {journal}")


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
    check_memory_limit(lab, progress, how=", with cgroupfs too")
    with progress.check("reload with right settings, while the task runs"):
        pid = lab.show_unit(AGENT, "MainPID")
        lab.sh(f"cp -p /root/agent.toml {_SETTINGS} && systemctl reload {AGENT}")
        lab.wait_for(f"[ $(systemctl show -P ActiveState {AGENT}) = active ]")
        require(lab.show_unit(AGENT, "MainPID") == pid, "reload has started another process")
        require_steady(lab)
    with progress.check("SIGKILL for the agent: systemd starts it again"):
        _replaced(lab, "KILL", timeout_s=150)
        require_steady(lab)
    with progress.check("an agent that hangs: the watchdog ends it") as note:
        _replaced(lab, "STOP", timeout_s=WATCHDOG_S + 150)
        journal = lab.sh(f"journalctl -b -u {AGENT} -g 'Watchdog timeout' --output cat | tail -n 1")
        require("Watchdog timeout" in journal, "the journal has no watchdog")
        note(journal)
        lab.sh(f"rm {_DROP_IN} && systemctl daemon-reload")
        require_steady(lab)
    with progress.check("systemctl restart containerd while the task runs"):
        lab.sh("systemctl restart containerd.service")
        require_steady(lab)


def check_second_agent(lab: Lab, progress: Progress) -> None:
    """Two agents on one machine by mistake."""
    with progress.check("a second agent refuses to start"):
        said = lab.fails(
            "FARGATE_AGENT_STATE_DIR=/tmp/second FARGATE_AGENT_SOCKET=/tmp/second.sock "
            "timeout 150 fargate-agent 2>&1"
        )
        require("another agent" in said.splitlines()[-1], f"said: {said}")


def _replaced(lab: Lab, signal: str, timeout_s: float) -> None:
    """Send the agent a signal, and wait until another process is in its place and ready."""
    pid = lab.show_unit(AGENT, "MainPID")
    lab.sh(f"kill -{signal} {pid}")
    lab.wait_for(
        f"[ $(systemctl show -P MainPID {AGENT}) != {pid} ] && systemctl is-active -q {AGENT}",
        timeout_s,
    )


def check_journal(lab: Lab, progress: Progress) -> None:
    """The journal can be asked for a task."""
    with progress.check("journalctl FARGATE_TASK=… has the lines of one task"):
        task_id = lab.ids["steady"]
        lines = lab.sh(f"journalctl -b FARGATE_TASK={task_id} -u {AGENT} --output cat")
        require(lines, "no line")
    with progress.check("the log of the task has each line once") as note:
        note(f"{require_whole_log(lab)} lost to the full disk, and reported")


def check_full_disks(lab: Lab, progress: Progress) -> None:
    """A full disk is a reason, not a catastrophe."""
    for name, place in (("/var", "/var/lib/fill"), ("/run", "/run/fill")):
        with progress.check(
            f"a task on a machine whose {name} is full: a reason, and no harm"
        ) as note:
            path = lab.put(_HELLO)
            lab.machine.run(
                f"dd if=/dev/zero of={place} bs=64K status=none; "
                f"dd if=/dev/zero of={place} bs=1 oflag=append conv=notrunc status=none"
            )
            done = lab.machine.run(f"fargate run {path} --follow 2>&1", timeout_s=240)
            lab.sh(f"rm {place}")
            require(done.code not in {5, 124}, f"exit {done.code}: {done.stdout}")
            note(done.stdout.strip().splitlines()[-1][-120:])
            require_steady(lab)


_HELLO: Final = definition("hello", "echo hello; exit 5")
