"""What every check has at hand: the machine, the world outside, and a place to say how it went."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.vm.machine import COMMAND_TIMEOUT_S, OUTSIDE_ADDRESS, Machine, OffError, Switch

IMAGE: Final = f"{OUTSIDE_ADDRESS}:5000/busybox:1"
"""In the registry outside; the machine gets there through a task's ENI only, or not at all."""

WEB_PORT: Final = 8000
"""Of a server outside, which logs who asked."""

PATIENCE_S: Final = 500
"""How long something may take to come about; shorter than a command may take."""


class CheckError(Exception):
    """The product didn't do what it should."""


@dataclass(slots=True, kw_only=True)
class Lab:
    """One run of the test."""

    suite: str
    machine: Machine
    switch: Switch
    access_log: Path
    """Of the web server outside."""
    ids: dict[str, str] = field(default_factory=dict)
    """Tasks that go on from check to check, by what they are for."""

    def sh(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a bash command in the machine, and return what it printed.

        Raises:
            CheckError: it failed.
        """
        done = self.machine.run(command, timeout_s)
        if done.code:
            said = f"{done.stdout}{done.stderr}".strip()[-3000:]
            raise CheckError(f"{command}: exit {done.code}: {said}")
        return done.stdout.strip()

    def fails(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command that has to fail, and return what it said."""
        done = self.machine.run(command, timeout_s)
        require(done.code not in {0, 124}, f"{command}: exit {done.code}")
        return f"{done.stdout}{done.stderr}".strip()

    def fargate(self, arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """Run the command line, and return its JSON."""
        return json.loads(self.sh(f"fargate {arguments} --output json", timeout_s))

    def run_task(self, definition: dict[str, Any], options: str = "") -> str:
        """Start a task and return its id."""
        answer = self.fargate(f"run {self.put(definition)} {options}")
        return str(answer["tasks"][0]["taskArn"]).rpartition("/")[2]

    def follow_task(
        self, definition: dict[str, Any], options: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> tuple[int, str]:
        """Run a task until it has stopped; return the exit code and all that was shown."""
        done = self.machine.run(
            f"fargate run {self.put(definition)} --follow {options} 2>&1", timeout_s
        )
        return done.code, done.stdout

    def put(self, definition: dict[str, Any]) -> str:
        """Write a task definition into the machine and return its path."""
        path = f"/tmp/{definition['family']}.json"
        self.sh(f"printf %s {shlex.quote(json.dumps(definition))} >{path}")
        return path

    def wait_for(self, command: str) -> str:
        """Repeat a command in the machine until it succeeds, and return what it printed."""
        loop = f'until out=$({command}); do sleep 0.3; done; printf %s "$out"'
        done = self.machine.run(f"timeout {PATIENCE_S} bash -c {shlex.quote(loop)}")
        require(done.code == 0, f"not within {PATIENCE_S} s: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_for_status(self, task_id: str, *statuses: str) -> str:
        """Wait until a task has one of these statuses to the control plane, and return it."""
        own = f'^  "lastStatus": "({"|".join(statuses)})"'  # not that of a container
        line = self.wait_for(
            f"fargate describe {task_id} --output json | grep -E {shlex.quote(own)}"
        )
        return line.split('"')[3]

    def describe(self, task_id: str) -> dict[str, Any]:
        """Return what the control plane knows of a task."""
        found: dict[str, Any] = self.fargate(f"describe {task_id}")
        return found

    def address(self, task_id: str) -> str:
        """Return the IPv4 address of a task's ENI."""
        details = self.describe(task_id)["attachments"][0]["details"]
        return next(str(one["value"]) for one in details if one["name"] == "privateIPv4Address")

    def side_by_side(self, *checks: Callable[[], None]) -> None:
        """Do checks at the same time; raise what one of them raised when all are done."""
        with ThreadPoolExecutor() as pool:
            try:
                for done in [pool.submit(check) for check in checks]:
                    done.result()
            except KeyboardInterrupt:
                self.machine.cut_power()  # nobody waits for what the others wait for
                raise

    def show_unit(self, unit: str, name: str) -> str:
        """Return a property of a systemd unit."""
        return self.sh(f"systemctl show -P {name} {unit}")


def definition(
    family: str, script: str, *, cpu: int = 256, memory_mib: int = 512, **container: Any
) -> dict[str, Any]:
    """A task of one container, which runs a shell script."""
    return {
        "family": family,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": str(cpu),
        "memory": str(memory_mib),
        "containerDefinitions": [
            {
                "name": family,
                "image": IMAGE,
                "essential": True,
                "entryPoint": ["sh", "-c"],
                "command": [script],
                "stopTimeout": 2,
                **container,
            }
        ],
    }


def require(holds: object, otherwise: str) -> None:
    """Raise `CheckError` with a text unless something holds."""
    if not holds:
        raise CheckError(otherwise)


@dataclass(slots=True)
class Progress:
    """Prints a line for each check."""

    whose: str
    """Name of the journey that it belongs to."""

    @contextmanager
    def check(self, what: str) -> Iterator[Callable[[str], None]]:
        """Time what is done inside; the function it gives adds a remark to the line."""
        begun, remarks = time.monotonic(), list[str]()
        outcome = "FAIL"
        try:
            yield remarks.append
            outcome = "ok"
        except CheckError as error:
            remarks.append(str(error)[:300])
            raise
        except (KeyboardInterrupt, OffError):
            outcome = "cut"
            raise
        finally:
            took_s = time.monotonic() - begun
            remark = f" ({'; '.join(remarks)})" if remarks else ""
            print(f"{outcome:4} {took_s:6.1f} s  {self.whose}: {what}{remark}", flush=True)


def complain(text: str) -> None:
    """Tell what went wrong."""
    print(text, file=sys.stderr, flush=True)
