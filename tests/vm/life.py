"""What keeps a container what it is: the kernel's second lines, its logger, what is run inside."""

from typing import Any, Final

from tests.vm.lab import Lab, Progress, definition, require
from tests.vm.tasks import STEADY, require_whole_log

_PROFILE: Final = "fargate-default (enforce)"

_CONFINED_SCRIPT: Final = """
read -r profile </proc/self/attr/current; echo "profile: $profile"
echo "of a program: $(cat /proc/self/attr/current)"
mkdir -p /here; mount -t tmpfs none /here 2>&1 && echo mounted
printf own >/proc/self/comm && echo "a file of its own below proc: written"
n=0
until [ -s /tmp/check ]; do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.2; done
echo "of a check: $(tail -n 1 /tmp/check)"
[ "$(head -n 1 /tmp/check)" = "$(cat /proc/self/cgroup)" ] && echo "counts for its container"
for process in /proc/[0-9]*; do
  grep -q '[n]eighbour of the task' $process/cmdline && kill -USR1 ${process#/proc/}
done
sleep 2
exit 5
"""
_NEIGHBOUR_SCRIPT: Final = """
trap 'echo told' USR1
trap 'echo asked to end; exit 7' TERM
while :; do sleep 0.2; done
"""
_CHECK: Final = "cat /proc/self/cgroup /proc/self/attr/current >/tmp/next; mv /tmp/next /tmp/check"


def check_confinement(lab: Lab, progress: Progress) -> None:
    """AppArmor keeps a container from what its capabilities would allow, and from nothing else."""
    with progress.check("AppArmor's profile, and a check that runs inside its container") as note:
        task = _plan_confined()
        code, shown = lab.follow_task(task)
        require(code == 5, f"exit {code}: {shown}")
        for line in (
            f"profile: {_PROFILE}",
            f"of a program: {_PROFILE}",
            "ermission denied",
            "a file of its own below proc: written",
            f"of a check: {_PROFILE}",
            "counts for its container",
            "told",
            "asked to end",
        ):
            require(line in shown, f"no {line!r} in: {shown}")
        require("| mounted" not in shown, f"a mount: {shown}")
        note(_PROFILE)


def _plan_confined() -> dict[str, Any]:
    """A task of two that share their processes, one of them with a right that Fargate hasn't."""
    task = definition(
        "confined",
        _CONFINED_SCRIPT,
        linuxParameters={"capabilities": {"add": ["SYS_ADMIN"]}},
        healthCheck={"command": ["CMD-SHELL", _CHECK], "interval": 5, "timeout": 60},
    )
    (main,) = task["containerDefinitions"]
    neighbour = {
        **definition("neighbour", _NEIGHBOUR_SCRIPT, essential=False)["containerDefinitions"][0],
        "command": [_NEIGHBOUR_SCRIPT, "neighbour of the task"],
    }
    del task["requiresCompatibilities"]  # Fargate gives nobody SYS_ADMIN
    return {**task, "pidMode": "task", "containerDefinitions": [main, neighbour]}


def check_killed_logger(lab: Lab, progress: Progress) -> None:
    """Another logger takes the place of one that was killed, and no line is missing."""
    with progress.check("a logger that is killed is replaced, and no line is lost") as note:
        task_id = lab.ids[STEADY]
        find = f"pgrep -f '[p]ython3 -ISE.*{task_id}'"
        first = lab.wait_for(find)
        lab.sh(f"kill -9 {first}")
        second = lab.wait_for(f"{find} | grep -vx {first}")
        group = lab.sh(f"cat /proc/{second}/cgroup")
        require(f"ecs-{task_id}-" in group, f"in {group}")
        require(group.endswith("-logger.scope"), f"in {group}")
        lines = lab.sh(f"fargate logs {task_id} | grep -c tick")
        lab.wait_for(f"[ $(fargate logs {task_id} | grep -c tick) -gt $(({lines}+1)) ]")
        require_whole_log(lab)
        lab.sh("journalctl -q -u fargate-agent -o cat | grep 'another one takes its place'")
        reasons = [one.get("reason") for one in lab.describe(task_id)["containers"]]
        require(reasons == [None], f"reasons: {reasons}")
        note(f"process {first}, then {second}")
