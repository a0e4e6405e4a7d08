"""`fargate up` with the real programs: what it starts, keeps alive, takes over and takes down."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fargate_agent.cli.layout import SOCKET_PATH_BYTES
from fargate_agent.cli.stack.claims import Claims
from tests.fixtures.cli import Cli, Outcome, finish
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import arguments, mountpoints
from tests.fixtures.up import DEADLINE_S, EXAMPLES, IMAGE, Up, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]  # two stacks, one after the other


async def test_up_runs_the_examples_and_leaves_nothing_but_its_directory(up: Up) -> None:
    before = set(Path("/run").iterdir()) | set(Path("/opt").iterdir())
    cli = await up.ready()
    assert stat.S_IMODE((up.state_dir / "env").stat().st_mode) == 0o600
    assert set(up.programs()) == {"containerd", "fargate-control", "fargate-agent"}
    await up.load_image(cli)

    hello = await cli.run(
        "run", "-f", str(EXAMPLES / "hello.json"), "--override", "hello.environment.EXIT_CODE=7"
    )
    assert hello.code == 7, hello.err
    assert re.fullmatch(r"hello \| hello from [\d.]+\n", hello.out)

    web = await cli.run("run", str(EXAMPLES / "web-and-client.json"))
    task = web.out.strip()
    follower = await cli.start("logs", "-f", task)
    assert follower.stdout is not None
    seen = ""
    async with asyncio.timeout(DEADLINE_S):
        while "client | the address: " not in seen:
            seen += (await follower.stdout.readline()).decode()
    assert "client | the page: hello from the web container\n" in seen
    assert f'"TaskARN":"{task}"' in seen
    doctor = await cli.run("doctor")
    assert doctor.code == 0, doctor.out

    assert await up.end() == 0

    assert (await finish(follower)).code == 0
    assert "tasks stopped: 1\n" in up.output[-1]
    assert not (up.state_dir / "env").exists()
    assert not [point for point in mountpoints() if str(up.state_dir) in point]
    assert not [p for p in Path("/proc").glob("[0-9]*") if str(up.state_dir) in args_of(p)]
    assert set(Path("/run").iterdir()) | set(Path("/opt").iterdir()) <= before


EXAMPLE_RUNS = {
    "hello.json": (0, ["hello | hello from "]),
    "metadata.json": (0, ['asks | {"DockerId":', 'asks | {"Cluster":']),
    "health-gate.json": (0, ["client | the page of a server that is slow to start"]),
    "retries.json": (
        0,
        ["job | the first try", "job | failed", "job | the second try: done"],
    ),
    "efs.json": (0, ["count | 1"]),
    "ebs.json": (0, ["% /data"]),
}
"""Exit codes of the examples that end by themselves, and lines that are in what they print."""
STOPPED_EXAMPLES = {
    "web-and-client.json": "client | the address: ",
    "init.json": "worker | process 1 is init",
}
"""What those print that go on until they are stopped."""
VOLUMES = {"ebs.json": "ebs-volume.json"}
"""Files with the volumes of those that are configured when they are run."""


@pytest.mark.timeout(300)  # one of them works for a minute before it fails
async def test_every_example_does_what_it_shows(up: Up) -> None:
    names = {*EXAMPLE_RUNS, *STOPPED_EXAMPLES, *VOLUMES.values()}
    assert names == {path.name for path in EXAMPLES.glob("*.json")}
    cli = await up.ready()
    await up.load_image(cli)

    async def follow(name: str) -> Outcome:
        volume = [f"--volume=@{EXAMPLES / VOLUMES[name]}"] if name in VOLUMES else []
        follower = await cli.start("run", "--follow", str(EXAMPLES / name), *volume)
        return await finish(follower, within_s=180)

    async def stop(name: str, said: str) -> None:
        task = (await cli.run("run", str(EXAMPLES / name))).out.strip()
        await wait_for_log(cli, task, said)
        stopped = await cli.run("stop", task, "--wait")
        assert stopped.code == 0, stopped.err
        if name == "init.json":
            described = await cli.run("describe", task)
            assert "exit code 143\n" in described.out

    async with asyncio.TaskGroup() as group:
        following = {name: group.create_task(follow(name)) for name in EXAMPLE_RUNS}
        for name, said in STOPPED_EXAMPLES.items():
            group.create_task(stop(name, said))
    outcomes = {name: task.result() for name, task in following.items()}

    for name, (code, lines) in EXAMPLE_RUNS.items():
        assert outcomes[name].code == code, (name, outcomes[name])
        for line in lines:
            assert line in outcomes[name].out, (name, outcomes[name])


def args_of(process: Path) -> str:
    return " ".join(arguments(int(process.name)))


async def test_up_that_is_killed_takes_its_programs_along_and_the_next_one_takes_over_its_task(
    up: Up,
) -> None:
    cli = await up.ready()
    await up.load_image(cli)
    ran = await cli.run("run", str(EXAMPLES / "web-and-client.json"))
    task = ran.out.strip()
    await wait_for_log(cli, task, "the address")
    endpoint, programs = cli.env["AWS_ENDPOINT_URL_ECS"], up.programs()

    assert await up.end(signal.SIGKILL) == -signal.SIGKILL
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in programs.values()))
    cli = await up.ready()

    assert cli.env["AWS_ENDPOINT_URL_ECS"] == endpoint
    described = await cli.run("describe", task)
    assert "status        RUNNING\n" in described.out
    logs = await cli.run("logs", task)
    assert logs.out.count("client | the page: ") == 1
    stopped = await cli.run("stop", task, "--wait")
    assert stopped.code == 0, stopped.err


async def wait_for_log(cli: Cli, task: str, text: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while text not in (await cli.run("logs", task)).out:
            pass


async def test_up_starts_again_what_dies(up: Up) -> None:
    cli = await up.ready()
    programs = up.programs()
    assert any(line.startswith("AWS: local, this machine does without") for line in up.output)

    for pid in programs.values():
        os.kill(pid, signal.SIGKILL)

    for name in ("fargate-agent", "fargate-control-plane", "containerd"):
        await up.until_said(f"{name} was killed by SIGKILL; starting it again in 0.5 s")
    await until(lambda: len(up.programs()) == len(programs))
    async with asyncio.timeout(DEADLINE_S):
        while (doctor := await cli.run("doctor")).code != 0:
            pass
    assert "\nAWS: local, this machine does without" in doctor.out


async def test_up_refuses_a_directory_that_another_has(ups: Callable[..., Up]) -> None:
    first, second = ups("same"), ups("same")
    await first.ready()

    await second.start()

    assert await second.end(signal.SIGCONT) == 1
    assert f'fargate: {first.state_dir}: another "fargate up" runs here\n' == second.output[-1]
    assert (first.state_dir / "env").exists()


async def test_up_beside_another_takes_another_port_and_range(ups: Callable[..., Up]) -> None:
    first = ups("first")
    used = len(f"{first.state_dir.parent}//run/containerd.sock.ttrpc")
    second = ups("x" * (SOCKET_PATH_BYTES - used))  # the longest that containerd takes
    one, two = await first.ready(), await second.ready()

    assert one.env["AWS_ENDPOINT_URL_ECS"] != two.env["AWS_ENDPOINT_URL_ECS"]
    ranges = [await up.until_said("VPC") for up in (first, second)]
    assert len({line.rpartition(" ")[2] for line in ranges}) == 2
    for up, cli in ((first, one), (second, two)):
        await up.load_image(cli)
        ran = await cli.run("run", "-f", str(EXAMPLES / "hello.json"))
        assert ran.code == 0, ran.err


async def test_up_with_settings_that_make_no_sense_shows_what_the_program_said(up: Up) -> None:
    up.state_dir.mkdir()
    (up.state_dir / "control-plane.toml").write_text("colour = 'red'\n")

    await up.start()

    assert await up.end(signal.SIGCONT) == 1
    assert "colour" in up.output[-1]
    assert "fargate: fargate-control-plane ended with exit code 78; see " in up.output[-1]
    assert not up.programs()


async def test_up_refuses_a_port_and_a_range_that_are_in_use(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        url = f"http://127.0.0.1:{busy.getsockname()[1]}"
        await up.start("--listen", url)
        assert await up.end(signal.SIGCONT) == 1
    assert f"fargate: --listen {url}: the port is in use" in up.output[-1]

    await up.start("--vpc-cidr", "127.0.0.0/16")
    assert await up.end(signal.SIGCONT) == 1
    assert "fargate: --vpc-cidr 127.0.0.0/16: overlaps 127.0.0.1/32" in up.output[-1]


async def test_up_uses_the_containerd_that_it_is_given(
    up: Up, private_containerd: PrivateContainerd
) -> None:
    cli = await up.ready("--containerd", str(private_containerd.socket), "--output", "json")

    assert set(up.programs()) == {"fargate-control", "fargate-agent"}
    await up.load_image(cli)
    ran = await cli.run("run", "-f", str(EXAMPLES / "hello.json"), "--output", "json")
    assert ran.lines[-1]["exitCode"] == 0
    assert (await cli.run("images", "rm", IMAGE)).code == 0


async def test_up_leaves_tasks_running_at_the_second_interrupt(up: Up) -> None:
    cli = await up.ready()
    await up.load_image(cli)
    definition = json.loads((EXAMPLES / "hello.json").read_text())
    definition["containerDefinitions"][0]["stopTimeout"] = 10  # in which both signals come
    stubborn = up.state_dir / "stubborn.json"
    stubborn.write_text(json.dumps(definition))
    ran = await cli.run(
        "run",
        str(stubborn),
        "--override",
        'hello.command=["sh", "-c", "trap \\"\\" TERM; echo up; while :; do sleep 0.1; done"]',
    )
    await wait_for_log(cli, ran.out.strip(), "up")

    os.kill(up.pid, signal.SIGINT)
    await up.until_said("stopping tasks")
    await asyncio.sleep(0.4)  # two signals closer together than a finger can count as one
    os.kill(up.pid, signal.SIGINT)

    await up.until_said("not waiting for tasks")
    assert await up.end(signal.SIGCONT) == 0
    with Claims() as claims:
        claims.lock(up.state_dir / "lock")
