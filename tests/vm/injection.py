"""Faults that a task injects into its own network, with the queues that few test kernels have."""

from typing import Final

from tests.vm.lab import WEB_PORT, Lab, Progress, definition, require
from tests.vm.machine import OUTSIDE_ADDRESS

_DELAY_MS: Final = 3000
_SCRIPT: Final = f"""
fault=$ECS_AGENT_URI/fault/v1 web=http://{OUTSIDE_ADDRESS}:{WEB_PORT}/from-macvlan
ask() {{ wget -qO- --post-data "$2" $fault/$1 || echo "$1 failed"; }}
load() {{ timeout $1 wget -q -O - $web || echo nothing; }}
echo "before: $(load 60)"
to='"Sources": ["{OUTSIDE_ADDRESS}"]'
echo "late: $(ask network-latency/start \
"{{\\"DelayMilliseconds\\": {_DELAY_MS}, \\"JitterMilliseconds\\": 0, $to}}")"
echo "late: $(ask network-latency/status '')"
begun=$(cut -d. -f1 /proc/uptime)
echo "slowly: $(load 60)"
echo "took $(( $(cut -d. -f1 /proc/uptime) - begun )) s"
wget -qO /dev/null $ECS_CONTAINER_METADATA_URI_V4 && echo "endpoint answers"
echo "not late: $(ask network-latency/stop '')"
echo "lost: $(ask network-packet-loss/start "{{\\"LossPercent\\": 100, $to}}")"
echo "lost: $(ask network-packet-loss/status '')"
echo "in vain: $(load 5)"
echo "not lost: $(ask network-packet-loss/stop '')"
echo "after: $(load 60)"
"""


def check_injection(lab: Lab, progress: Progress) -> None:
    """A task delays its packets, loses them, and is well again; nothing else notices."""
    with progress.check("a task whose packets are late, and lost, by its own wish") as note:
        task = {**definition("injection", _SCRIPT), "enableFaultInjection": True}
        code, shown = lab.follow_task(task)
        require(code == 0, f"exit {code}: {shown}")
        for line in (
            "before: hello from outside",
            'late: {"Status":"running"}',
            "slowly: hello from outside",
            "endpoint answers",
            'not late: {"Status":"stopped"}',
            'lost: {"Status":"running"}',
            "in vain: nothing",
            'not lost: {"Status":"stopped"}',
            "after: hello from outside",
        ):
            require(line in shown, f"no {line!r} in: {shown}")
        took_s = int(shown.partition("took ")[2].partition(" s")[0])
        # The first packet and the request are late, each by the delay.
        require(took_s >= 2 * _DELAY_MS // 1000 - 1, f"loaded in {took_s} s: {shown}")
        note(f"{took_s} s")
