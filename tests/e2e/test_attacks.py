"""What a task does to its metadata endpoint harms nobody else, and it learns nothing of others.

A program inside a container of one task attacks; meanwhile another task asks for its metadata, and
the agent is asked on its own socket how long its event loop takes to answer.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, bind_outside, make_outside, make_stack
from tests.fixtures.tmds import fetch
from tests.third_party.images import add_plain_python, plain_python

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),  # the slow attacks last as long as the endpoint lets them
    pytest.mark.asyncio(loop_scope="module"),
]

log = logging.getLogger(__name__)

DEADLINE_S: Final = 60
LAG_S: Final = 2.0
"""How long the agent may take to answer anybody meanwhile; a busy machine needs some of it."""
GROWTH_MB: Final = 64
BODY_MB: Final = 64
"""How much of a body may be sent before the agent hangs up; buffers of the kernel take some."""
CONNECTIONS: Final = 64
"""Of one task, at most."""
HOLD_S: Final = 20
"""How long the agent may keep them: 5 s for a request to come, and for an answer to be taken."""
SPARE_FILES: Final = 5
"""Descriptors that it may have for other reasons."""
FILES: Final = 512
"""Descriptors that the agent may have more than before, whatever one task opens."""


@dataclass
class Victim:
    """A task that only wants its metadata."""

    task_id: str
    netns: Path
    ids: list[str]
    """Of its container: what it calls itself, and what others may call it."""


@dataclass
class Seen:
    """What the agent was like during an attack."""

    found: Any = None
    lags_s: list[float] = field(default_factory=list)
    victims: list[tuple[int, float]] = field(default_factory=list)
    """Status of each answer to the other task, and the seconds it took."""
    files: int = 0
    grown_mb: float = 0.0

    def tell(self, kind: str) -> None:
        """Write the figures where `-o log_level=INFO -rA` shows them."""
        log.info(
            "%s %s: the agent answers within %.0f ms, the victim's endpoint within %.0f ms; "
            "%d files and %.1f MB more",
            kind,
            self.found,
            max(self.lags_s) * 1e3,
            max(seconds for _, seconds in self.victims) * 1e3,
            self.files,
            self.grown_mb,
        )

    def check(self) -> None:
        """Nobody else has suffered."""
        assert {status for status, _ in self.victims} == {200}
        assert max(seconds for _, seconds in self.victims) < LAG_S
        assert max(self.lags_s) < LAG_S
        assert self.grown_mb < GROWTH_MB
        assert self.files < FILES


@dataclass
class Field:
    """The stack with both tasks in it."""

    stack: Stack
    attacker: str
    """The id of its container."""
    attackers_id: str
    victim: Victim

    async def attack(self, kind: str, *arguments: str) -> Seen:
        """Run an attack to its end, and watch."""
        seen = Seen()
        size, files = self._size_mb(), self._files()
        async with self._watched(seen, files):
            seen.found = await self.run(kind, *arguments)
        seen.grown_mb = self._size_mb() - size
        seen.tell(kind)
        return seen

    async def outlive(self, kind: str, *arguments: str) -> Seen:
        """Begin an attack that lasts; end it when the agent has closed all of its connections."""
        seen = Seen()
        size, files = self._size_mb(), self._files()
        async with self._watched(seen, files):
            process = await self._start(kind, *arguments)
            assert process.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                held = json.loads(await process.stdout.readline())
                began_s = time.monotonic()
                while seen.files < CONNECTIONS:  # as many as a task may have: it takes them later
                    await asyncio.sleep(0.05)
                while self._files() > files + SPARE_FILES:
                    await asyncio.sleep(0.05)
            seen.found = {**held, "for_s": time.monotonic() - began_s}
            process.terminate()
            await process.communicate()
        seen.grown_mb = self._size_mb() - size
        seen.tell(kind)
        return seen

    async def run(self, kind: str, *arguments: str) -> Any:
        """Run the program inside the attacker's container; return what it printed."""
        process = await self._start(kind, *arguments)
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    async def _start(self, kind: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("ctr", "-a", str(self.stack.containerd.socket), "-n", self.stack.namespace),
            *("tasks", "exec", "--exec-id", f"{kind}-{time.monotonic_ns()}", self.attacker),
            *("python", "-B", "/inside/attack.py", kind, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def _watched(self, seen: Seen, files: int) -> AsyncIterator[None]:
        connector = aiohttp.UnixConnector(str(self.stack.socket))
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(self._watch_agent(http, seen, files)),
                group.create_task(self._watch_victim(seen)),
            ]
            try:
                yield
            finally:
                for watcher in watchers:
                    watcher.cancel()

    async def _watch_agent(self, http: aiohttp.ClientSession, seen: Seen, files: int) -> None:
        while True:
            began_s = time.monotonic()
            async with http.get("http://agent/v1/nothing") as answer:
                await answer.read()
            seen.lags_s.append(time.monotonic() - began_s)
            seen.files = max(seen.files, self._files() - files)
            await asyncio.sleep(0.02)

    async def _watch_victim(self, seen: Seen) -> None:
        while True:
            began_s = time.monotonic()
            answer = await fetch(self.victim.netns, f"/v4/{self.victim.ids[0]}/task")
            seen.victims.append((answer.status, time.monotonic() - began_s))
            await asyncio.sleep(0.05)

    def _files(self) -> int:
        return len(list(Path(f"/proc/{self.stack.agent.pid}/fd").iterdir()))

    def _size_mb(self) -> float:
        status = Path(f"/proc/{self.stack.agent.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


def metadata_id(stack: Stack, container: str) -> str:
    """Return by which id a container asks for its metadata."""
    spec = json.loads(stack.ctr("containers", "info", container))["Spec"]
    variables = dict(one.split("=", 1) for one in spec["process"]["env"])
    return str(variables["ECS_CONTAINER_METADATA_URI_V4"].rpartition("/")[2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field_(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd
) -> AsyncIterator[Field]:
    """A stack with an attacker and a victim."""
    root = tmp_path_factory.mktemp("attacks")
    with make_outside() as outside:
        registry = FakeRegistry()
        add_plain_python(registry)
        async with (
            registry.serve(bind_outside(outside[0], 5000)),
            make_stack(root, private_containerd, outside) as stack,
        ):
            arns = [stack.run(plain_python("main", "keeper.py")) for _ in range(2)]
            for arn in arns:
                await stack.wait_for(arn, "RUNNING")
            task_ids = [arn.rpartition("/")[2] for arn in arns]
            listed = stack.ctr("containers", "ls", "-q").split()
            attacker, victim = (
                next(one for one in listed if task_id in one) for task_id in task_ids
            )
            yield Field(
                stack=stack,
                attacker=attacker,
                attackers_id=metadata_id(stack, attacker),
                victim=Victim(
                    task_id=task_ids[1],
                    netns=root / "netns" / f"fargate-{task_ids[1]}",
                    ids=[metadata_id(stack, victim), victim, task_ids[1], arns[1]],
                ),
            )


async def test_nothing_of_another_task_is_told(field_: Field) -> None:
    own = await field_.run("others", "no mark", field_.attackers_id)
    seen = await field_.attack("others", field_.victim.task_id, *field_.victim.ids)

    assert own["good"] > 5  # what is asked of another task is answered for one's own
    leaks = [answer for answer in seen.found["leaks"] if "KnownStatus" in answer]
    assert (leaks, seen.found["good"]) == ([], 0)
    seen.check()


async def test_ids_are_not_to_be_guessed(field_: Field) -> None:
    seen = await field_.attack("guesses", "2000")

    assert "200" not in seen.found
    seen.check()


@pytest.mark.parametrize("how", ["length", "chunks"])
async def test_body_of_a_gigabyte_is_not_read(field_: Field, how: str) -> None:
    seen = await field_.attack("big-body", how)

    assert seen.found["taken_mb"] < BODY_MB
    seen.check()


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("slow", CONNECTIONS, id="slow"),
        pytest.param("unread", CONNECTIONS, id="unread"),
        pytest.param("many", 10_000, id="10,000"),
    ],
)
async def test_connections_that_take_their_time_are_closed(
    field_: Field, kind: str, count: int
) -> None:
    seen = await field_.outlive(kind, str(count))

    assert seen.found["held"] == count
    assert seen.found["for_s"] < HOLD_S
    seen.check()
    async with asyncio.timeout(DEADLINE_S):  # what waited to be taken is let go first
        while await field_.run("good", f"/v4/{field_.attackers_id}") != 200:
            await asyncio.sleep(0.1)


async def test_requests_that_are_sent_ahead_are_answered_one_by_one(field_: Field) -> None:
    few = await field_.run("pipeline", "5")
    seen = await field_.attack("pipeline", "10000")

    assert few["answers"] == 5
    seen.check()


async def test_nonsense_is_refused(field_: Field) -> None:
    seen = await field_.attack("nonsense")

    assert not {name for name, status in seen.found.items() if 200 <= status < 300}
    seen.check()


async def test_connections_that_come_and_go_are_let_go(field_: Field) -> None:
    seen = await field_.attack("churn", "2000")

    assert seen.found > 0
    seen.check()
