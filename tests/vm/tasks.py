"""What tasks see, do, and are kept from, on the installed product."""

import json
import re
import time
from typing import Any, Final

from tests.vm.lab import IMAGE, PATIENCE_S, WEB_PORT, Lab, Progress, definition, require
from tests.vm.machine import LAN_GATEWAY
from tests.vm.project import CHECKOUT

STEADY: Final = "steady"
"""Role of the task that goes on from check to check."""

LAN_SUBNET: Final = "subnet-lan"
LAN_GROUP: Final = "sg-lan"
"""Both are those of the document."""
"""Of docs/install.md: its tasks are in the network of the second NIC."""

_STEADY_SCRIPT: Final = """
trap 'kill $!; exit 0' TERM
exec 2>/dev/null
id=$(cat /proc/sys/kernel/random/uuid) n=0 asked=0
mkdir -p /www && httpd -p 8080 -h /www
while :; do
  n=$((n+1))
  timeout 5 wget -q -O /tmp/task $ECS_CONTAINER_METADATA_URI_V4/task && asked=$((asked+1))
  echo "$id $n $asked" >/www/next && mv /www/next /www/index.html
  printf 'tick %d%4096s\\n' $n
  sleep 1 & wait $!
done
"""
"""Says who it is, and how often it could ask the metadata endpoint; never ends by itself.

It logs ticks alone, so that lines lost are ticks lost; each takes more than a block of the disk, so
that a full one takes none. (Of its shell, a full disk would make complaints, which are lines too.)
"""

_STATS_SCRIPT: Final = """
n=0
until stats=$(sleep 1; wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task/stats); do
  n=$((n+1)); [ $n -lt 30 ] || exit 1
done
echo "the stats: $stats"
exit 7
"""
"""The endpoint has no stats where they take too long to get: a slow machine's clients ask again."""

_SPIN_S: Final = 6
_SPIN_SCRIPT: Final = f"""
spin() {{
  end=$(($(date +%s)+{_SPIN_S}))
  while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 999 ]; do i=$((i+1)); done; done
}}
spin & spin & wait
times
"""
_EAT_SCRIPT: Final = "exec dd if=/dev/zero of=/dev/null bs=1G"


def check_hello(lab: Lab, progress: Progress, *, when: str) -> None:
    """A task runs to its end, and nothing of it is left."""
    with progress.check(f"a task {when}: its image, its output, its exit code") as note:
        code, shown = lab.follow_task(definition("hello", "hostname -i; exit 5"))
        require(code == 5, f"exit {code}: {shown}")
        note(_find(r"hello \| ([\d.]+)", shown))
        require_no_links(lab)


def check_web_and_client(lab: Lab, progress: Progress) -> None:
    """Two containers of a task speak to each other, and the metadata endpoint to both."""
    with progress.check("a web and a client container; metadata v4 and stats from inside") as note:
        task = json.loads((CHECKOUT / "examples/web-and-client.json").read_text())
        web, client = task["containerDefinitions"]
        web |= {"image": IMAGE, "essential": False}
        client |= {"image": IMAGE, "essential": True}
        client["command"][0] += _STATS_SCRIPT
        code, shown = lab.follow_task(task)
        require(code == 7, f"exit {code}: {shown}")
        require("the page: hello from the web container" in shown, f"no page: {shown}")
        metadata = json.loads(_find(r"the task: (\{.*\})", shown))
        require(metadata["Limits"] == {"CPU": 0.25, "Memory": 512}, f"limits: {metadata}")
        address = metadata["Containers"][0]["Networks"][0]["IPv4Addresses"][0]
        require(address in _find(r"the address: (.*)", shown), f"{address} isn't in: {shown}")
        stats = json.loads(_find(r"the stats: (\{.*\})", shown))
        _require_stats(stats)
        note(f"{address}, pulled from a registry that only tasks' ENIs lead to")


def check_memory_limits(lab: Lab, progress: Progress, *, how: str = "") -> None:
    """The kernel ends what needs more memory than its container has, or than its task has."""
    with progress.check(f"whoever takes more memory than container or task has is killed{how}"):
        task = definition("eater", _EAT_SCRIPT)
        (eater,) = task["containerDefinitions"]
        small = {**eater, "name": "small-eater", "memory": 64, "essential": False}
        eater["dependsOn"] = [{"containerName": "small-eater", "condition": "COMPLETE"}]
        task["containerDefinitions"].append(small)
        code, shown = lab.follow_task(task)
        require(code == 137, f"exit {code}: {shown}")
        for name in ("eater", "small-eater"):
            require(re.search(rf"(?<!-)\b{name}\b.*OutOfMemoryError", shown), f"{name}: {shown}")


def check_cpu_limit(lab: Lab, progress: Progress, *, how: str = "") -> None:
    """A task gets the share of the processors that it asked for, and no more."""
    with progress.check(f"two busy loops in a task of 256 CPU units{how}") as note:
        code, shown = lab.follow_task(definition("spinner", _SPIN_SCRIPT))
        require(code == 0, f"exit {code}: {shown}")
        times = re.findall(r"(\d+)m([\d.]+)s", shown)[-2:]
        used_s = sum(60 * int(minutes) + float(seconds) for minutes, seconds in times)
        share = used_s / _SPIN_S
        note(f"{share:.2f} of a processor")
        require(0.1 < share < 0.35, f"{share:.2f} of a processor instead of 0.25: {shown}")


def check_loggers(lab: Lab, progress: Progress) -> None:
    """A logger and its shim count for their task, in a scope that systemd knows, and go with it."""
    with progress.check("the logger of a container is in a scope of its task's slice") as note:
        task_id = lab.run_task(definition("logged", "sleep 600"))
        lab.wait_for_status(task_id, "RUNNING")
        units = lab.sh(f"systemctl list-units --plain --no-legend 'ecs-{task_id}-*-logger.scope'")
        require(len(units.splitlines()) == 1, f"scopes: {units}")
        group = lab.sh(f"systemctl show -P ControlGroup {units.split()[0]}").strip()
        require(
            group.startswith(f"/ecstasks.slice/ecstasks-{task_id}.slice/"), f"not there: {group}"
        )
        names = lab.sh(
            f"for pid in $(cat /sys/fs/cgroup{group}/cgroup.procs); do cat /proc/$pid/comm; done"
        ).split()
        require(sorted(names) == ["containerd-shim", "python3"], f"in the scope: {names}")
        note(lab.sh(f"cat /sys/fs/cgroup{group}/memory.current").strip() + " bytes")
        lab.sh(f"fargate stop {task_id} --wait")
        require_nothing_left(lab, task_id)


def check_journald(lab: Lab, progress: Progress) -> None:
    """What a container prints is in the machine's journal, under its tag."""
    with progress.check("a container's output in the journal"):
        log = {"logDriver": "journald", "options": {"tag": "from-{{.Name}}"}}
        script = "echo to the journal; echo trouble >&2"
        task = definition("journal", script, logConfiguration=log)
        del task["requiresCompatibilities"]  # Fargate has no such driver
        code, shown = lab.follow_task(task)
        require(code == 0, f"exit {code}: {shown}")
        require("to the journal" in shown, f"no local copy: {shown}")
        find = "journalctl -q -o cat SYSLOG_IDENTIFIER=from-journal"
        lab.wait_for(f"{find} PRIORITY=6 | grep -x 'to the journal'")
        lab.wait_for(f"{find} PRIORITY=3 | grep -x trouble")


def check_macvlan(lab: Lab, progress: Progress) -> None:
    """A task of the second NIC's network is a neighbour of the machine, not behind it."""
    with progress.check("a macvlan task speaks to the world outside, and is spoken to") as note:
        script = (
            f"wget -q -O - http://{LAN_GATEWAY}:{WEB_PORT}/from-macvlan; "
            "mkdir /www; echo served by macvlan >/www/index.html; httpd -p 8080 -h /www; "
            "trap 'exit 0' TERM; sleep 600 & wait"
        )
        where = f"--subnet {LAN_SUBNET} --security-group {LAN_GROUP}"
        task_id = lab.run_task(definition("lan", script), where)
        address = lab.address(task_id)
        deadline = time.monotonic() + PATIENCE_S
        page = ""
        while "served by macvlan" not in page:
            require(time.monotonic() < deadline, f"{address} doesn't answer from outside")
            page = lab.switch.run(
                "sh",
                "-c",
                f"timeout 2 busybox wget -q -O - http://{address}:8080/ 2>&1 || sleep 0.3",
            )
        seen = [line for line in lab.access_log.read_text().splitlines() if "from-macvlan" in line]
        require(seen and seen[0].startswith(f"{address} "), f"seen outside: {seen}")
        note(f"seen as {address}")
        lab.sh(f"fargate stop {task_id} --wait")


def check_users(lab: Lab, progress: Progress) -> None:
    """Who is in the group may run tasks; who isn't is told so; the agent's key is root's."""
    with progress.check("a member of the group fargate runs a task, another user doesn't"):
        lab.sh(f"usermod -aG fargate {_MEMBER}")
        path = lab.put(definition("members", "echo from a member; exit 3"))
        done = lab.machine.run(f"{_as(_MEMBER)} fargate run {path} --follow 2>&1")
        require(done.code == 3, f"exit {done.code}: {done.stdout}")
        require("from a member" in done.stdout, f"shown: {done.stdout}")
        said = lab.fails(f"{_as(_STRANGER)} fargate ps")
        require("only root and the group fargate may read it" in said, f"said: {said}")
        for user in (_MEMBER, _STRANGER):
            said = lab.fails(f"{_as(user)} cat /etc/fargate/agent-key.toml")
            require("Permission denied" in said, f"said: {said}")


_MEMBER, _STRANGER = "member", "stranger"
ADD_USERS: Final = f"useradd --system {_MEMBER} && useradd --system {_STRANGER}"
"""Before all: they, and the copies of the lists of users, are nothing that the product brought."""


def _as(user: str) -> str:
    """As if the user had just logged in."""
    return f"setpriv --reuid {user} --regid {user} --init-groups --reset-env"


def start_steady(lab: Lab, progress: Progress) -> None:
    """Start the task that later checks find alive."""
    with progress.check("a task that goes on from here"):
        lab.ids[STEADY] = lab.run_task(definition(STEADY, _STEADY_SCRIPT))
        lab.ids["address"] = lab.address(lab.ids[STEADY])
        lab.ids["page"] = lab.wait_for(_ask(lab)).split()[0]


def check_steady(lab: Lab, progress: Progress) -> None:
    """The task has gone on, and the control plane knows that it runs."""
    with progress.check("the task has not noticed that the control plane restarted"):
        require_steady(lab)
        status = lab.describe(lab.ids[STEADY])["lastStatus"]
        require(status == "RUNNING", f"to the control plane it is {status}")


def require_steady(lab: Lab) -> None:
    """The same containers still run, and their metadata endpoint answers them."""
    before, number, asked = lab.wait_for(_ask(lab)).split()
    require(before == lab.ids["page"], "another container than before answers")
    lab.wait_for(
        f"read _ n asked < <({_ask(lab)}) && [ $n -gt {number} ] && [ $asked -gt {asked} ]"
    )


def require_whole_log(lab: Lab) -> int:
    """No line of the task's log is there twice, or missing without being reported.

    Returns how many were lost to the full disk: the log says so where they would be.
    """
    log = lab.sh(f"set -o pipefail; fargate logs {lab.ids[STEADY]} 2>&1 | tr -s ' '")
    last = lost = 0
    for tick, losses in re.findall(r"tick (\d+)|json-file: (\d+) lines lost: No space left", log):
        if losses:
            lost += int(losses)
            last += int(losses)
        else:
            require(int(tick) == last + 1, f"tick {tick} after {last}, with {lost} reported lost")
            last = int(tick)
    require(last > lost, f"no line: {log}")
    return lost


def require_nothing_left(lab: Lab, task_id: str) -> None:
    """The machine holds nothing of a task any more, but the local copy of its log."""
    looks = {
        "network namespaces": "ls /run/netns",
        "mounts": "cat /proc/self/mountinfo",
        "control groups": "find /sys/fs/cgroup -type d",
        "units": "systemctl list-units --all --plain --no-legend 'ecstasks-*' '*.scope'",
        "containers": "ctr -n fargate containers ls -q",
        "processes": "ctr -n fargate tasks ls -q",
        "snapshots": "ctr -n fargate snapshots ls",
        "leases": "ctr -n fargate leases ls -q",
        "directories": "ls /var/lib/fargate-agent/tasks",
    }
    for what, command in looks.items():
        found = [line for line in lab.sh(f"{command} || true").splitlines() if task_id in line]
        require(not found, f"{what} are left of task {task_id}: {found}")


def require_no_links(lab: Lab) -> None:
    """No task, no interface of a task.

    What is made ahead has no alias yet; only a task's interface says whose it is.
    """
    links = lab.sh("ip -o link show type veth | grep alias; ip -o link show type macvlan")
    require(not links, f"interfaces are left: {links}")


def _ask(lab: Lab) -> str:
    return f"timeout 3 busybox wget -q -O - http://{lab.ids['address']}:8080/"


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    require(found, f"no {pattern!r} in: {text}")
    assert found
    return found[1]


def _require_stats(stats: dict[str, Any]) -> None:
    """The stats of every container are those of a container that lives."""
    for one in filter(None, stats.values()):
        require(one["memory_stats"]["usage"] > 0, f"memory: {one}")
        require(0 < one["memory_stats"]["limit"] <= 2 << 30, f"memory limit: {one}")
        require(one["cpu_stats"]["cpu_usage"]["total_usage"] > 0, f"CPU: {one}")
        require(one["pids_stats"]["current"] >= 1, f"processes: {one}")
        require(one["networks"]["eth1"]["rx_bytes"] > 0, f"network: {one}")
    require(any(stats.values()), "no stats of any container")
