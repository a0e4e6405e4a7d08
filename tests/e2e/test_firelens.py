"""A task whose output goes to a router of its own, which speaks the real protocol."""

import re
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.aws import ROLE, Front, client, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.router import EXTRA, IMAGE, TAG, build_router, parse_entries
from tests.fixtures.stack import OUTSIDE, Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

DATA = Path(__file__).parents[1] / "data" / "firelens"
CONFIGS = {
    "fluentbit": ("Name", "/fluent-bit/etc/fluent-bit.conf", "fluent-bit-plain.conf"),
    "fluentd": ("@type", "/fluentd/etc/fluent.conf", "fluentd-plain.conf"),
}
LOSS = re.compile(
    r"web: fluentd: (\d+) lines not delivered in time, (\d+) dropped for want of room"
)
LOOP = "while :; do sleep 0.1; done"


@pytest.fixture
async def stack(
    private_containerd: PrivateContainerd, outside: tuple[Path, str]
) -> AsyncIterator[Stack]:
    """The programs, in a directory whose path is so short that sockets can be below."""
    with tempfile.TemporaryDirectory(prefix="fl-") as root:
        async with make_stack(Path(root), private_containerd, outside) as made:
            yield made


@pytest.fixture(autouse=True)
def router_image(registry: FakeRegistry) -> None:
    registry.add("router", TAG, build_router())


def router(kind: str = "fluentbit", **changes: Any) -> dict[str, Any]:
    configuration = {"type": kind, "options": changes.pop("options", {})}
    return {"name": "router", "image": IMAGE, "firelensConfiguration": configuration, **changes}


def web(script: str, output_key: str = "Name", **changes: Any) -> dict[str, Any]:
    log = {"logDriver": "awsfirelens", "options": {output_key: "stdout"}}
    return tool("web", script, logConfiguration=log, **changes)


def arrived(lines: list[str], tag: str) -> list[dict[str, Any]]:
    return [entry for entry in parse_entries(lines) if entry.get("tag") == tag]


def events(lines: list[str]) -> dict[str, dict[str, Any]]:
    return {entry["event"]: entry for entry in parse_entries(lines) if "event" in entry}


async def test_output_arrives_through_the_socket_with_its_tag_and_record(stack: Stack) -> None:
    arn = stack.run(web(f"echo one; echo two >&2; printf three; {LOOP}"), router())
    task_id = arn.rpartition("/")[2]

    lines = await stack.wait_for_log(arn, '"log": "two"')
    task = await stack.wait_for(arn, "RUNNING")
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    lines = await stack.logs(arn)

    entries = arrived(lines, f"web-firelens-{task_id}")
    (runtime_id,) = {c["runtimeId"] for c in task["containers"] if c["name"] == "web"}
    same = {"container_id": runtime_id, "container_name": "web"}
    records = sorted((entry["record"] for entry in entries), key=lambda record: record["log"])
    assert records[0] == {**same, "source": "stdout", "log": "one"}
    assert records[1].items() >= {**same, "source": "stdout", "log": "three"}.items()
    assert records[2] == {**same, "source": "stderr", "log": "two"}
    assert {(entry["place"], entry["precise"]) for entry in entries} == {("unix", True)}
    assert {"web: one", "web: two", "web: three"} <= set(lines)
    assert stack.leftovers(arn) == []


async def test_fluent_logger_reaches_the_router_by_its_variables(stack: Stack) -> None:
    sender = {
        "name": "sender",
        "image": IMAGE,
        "command": ["/send.py", "sender-firelens.own", "hello", "wörld"],
        "logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "stdout"}},
        "essential": False,
    }

    arn = stack.run(sender, router())
    await stack.wait_for_log(arn, "sender-firelens.own")
    lines = await stack.wait_for_log(arn, "w\\u00f6rld")

    entries = arrived(lines, "sender-firelens.own")
    assert [entry["record"] for entry in entries] == [
        {"level": "WARNING", "text": "hello"},
        {"level": "WARNING", "text": "wörld"},
    ]
    assert {(entry["place"], entry["precise"]) for entry in entries} == {("tcp", True)}
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


@pytest.mark.parametrize("kind", CONFIGS)
async def test_router_finds_its_configuration_where_it_looks_for_it(
    stack: Stack, kind: str
) -> None:
    output_key, path, golden = CONFIGS[kind]
    options = {"enable-ecs-log-metadata": "false"}

    arn = stack.run(router(kind, options=options), web(LOOP, output_key))
    lines = await stack.wait_for_log(arn, '"listens"')

    listens = events(lines)["listens"]
    assert listens["configs"] == {path: (DATA / golden).read_text()}
    assert listens["uid"] == 0
    assert ("FLUENT_UID" in listens["environment"]) == (kind == "fluentd")
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


@pytest.mark.parametrize("kind", CONFIGS)
async def test_router_reads_the_file_of_its_image_that_it_is_told_to_include(
    stack: Stack, kind: str
) -> None:
    output_key, path, _ = CONFIGS[kind]
    options = {"config-file-type": "file", "config-file-value": EXTRA[0]}

    arn = stack.run(router(kind, options=options), web(f"echo hello; {LOOP}", output_key))
    lines = await stack.wait_for_log(arn, '"log": "hello"')

    listens = events(lines)["listens"]
    assert listens["included"] == dict([EXTRA])
    before, _, after = listens["configs"][path].partition(EXTRA[0])
    assert "ecs_cluster default" in before
    assert "web-firelens" in after
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


async def test_router_is_the_last_that_stops_and_gets_what_is_said_before(stack: Stack) -> None:
    said = f"trap 'echo goodbye; exit 0' TERM; echo hello; {LOOP}"
    arn = stack.run(web(said), router())
    await stack.wait_for_log(arn, '"log": "hello"')

    stack.stop(arn)
    task = await stack.wait_for(arn, "STOPPED")

    entries = parse_entries(await stack.logs(arn))
    order = [e["record"]["log"] if "record" in e else e["event"] for e in entries]
    assert order == ["listens", "hello", "goodbye", "told to end"]
    assert {c["name"]: c["exitCode"] for c in task["containers"]} == {"web": 0, "router": 0}


async def test_nothing_is_lost_while_the_router_is_not_ready_yet(stack: Stack) -> None:
    late = [{"name": "DELAY_S", "value": "2"}]
    script = f"i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; {LOOP}"

    arn = stack.run(web(script), router(environment=late))
    lines = await stack.wait_for_log(arn, '"log": "line 499"')

    entries = arrived(lines, f"web-firelens-{arn.rpartition('/')[2]}")
    assert [entry["record"]["log"] for entry in entries] == [f"line {n}" for n in range(500)]
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


@pytest.mark.parametrize("essential", [True, False], ids=["essential", "not-essential"])
async def test_router_that_dies_ends_the_task_only_if_it_is_essential(
    stack: Stack, essential: bool
) -> None:
    killer = {
        "name": "killer",
        "image": IMAGE,
        "command": ["/send.py", "die", "now"],
        "logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "stdout"}},
        "essential": False,
        "dependsOn": [{"containerName": "web", "condition": "START"}],
    }
    script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done"

    arn = stack.run(web(script), router(essential=essential), killer)
    if essential:
        task = await stack.wait_for(arn, "STOPPED")
        assert task["stoppedReason"] == "Essential container in task exited"
    else:
        await stack.wait_for_log(arn, "web: line 40")
        stack.stop(arn)
        task = await stack.wait_for(arn, "STOPPED")
        assert task["stopCode"] == "UserInitiated"

    assert next(c["exitCode"] for c in task["containers"] if c["name"] == "router") == 3
    lines = await stack.logs(arn)
    assert "web: line 0" in lines
    assert any("web: fluentd: " in line and "not delivered in time" in line for line in lines)
    assert stack.leftovers(arn) == []


async def test_container_does_not_wait_for_a_router_that_hangs_and_its_losses_are_counted(
    stack: Stack,
) -> None:
    printed, line = 5000, "x" * 1000
    script = f"i=0; while [ $i -lt {printed} ]; do echo {line}; i=$((i+1)); done; exit 7"
    log = {
        "logDriver": "awsfirelens",
        "options": {"Name": "stdout", "log-driver-buffer-limit": "1000"},
    }
    hangs = [{"name": "HANGS", "value": "1"}]

    arn = stack.run(tool("web", script, logConfiguration=log), router(environment=hangs))
    task = await stack.wait_for(arn, "STOPPED")

    lines = await stack.logs(arn)
    codes = {container["name"]: container["exitCode"] for container in task["containers"]}
    assert codes == {"web": 7, "router": 0}
    assert lines.count(f"web: {line}") == printed
    (late, dropped) = next(
        (int(found[1]), int(found[2])) for text in lines if (found := LOSS.search(text))
    )
    # What the kernel holds for the router has been handed over, though nobody ever reads it.
    held = int(Path("/proc/sys/net/core/wmem_default").read_text()) // len(line)
    assert dropped >= printed - 1000 - held - 1
    assert printed - held <= late + dropped <= printed + 1  # the report of the loss is a line, too
    assert stack.leftovers(arn) == []


async def test_router_that_is_not_root_can_listen(stack: Stack) -> None:
    arn = stack.run(web(f"echo hello; {LOOP}"), router(user="1000:1000"))

    lines = await stack.wait_for_log(arn, '"log": "hello"')

    assert events(lines)["listens"]["uid"] == 1000
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []


async def test_records_of_the_metadata_name_the_task_and_its_definition(stack: Stack) -> None:
    arn = stack.run(router(), web(LOOP))
    lines = await stack.wait_for_log(arn, '"listens"')
    task = stack.describe(arn)

    (config,) = events(lines)["listens"]["configs"].values()
    definition = task["taskDefinitionArn"].rpartition("/")[2]
    records = re.findall(r"^    Record (\S+) (.*)$", config, re.MULTILINE)
    assert dict(records) == {
        "ecs_cluster": "default",
        "ecs_task_arn": arn,
        "ecs_task_definition": definition,
    }
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


async def test_secret_of_an_output_option_is_a_variable_of_the_router_alone(
    private_containerd: PrivateContainerd, outside: tuple[Path, str], moto: str
) -> None:
    client(moto, "ssm").put_parameter(Name="/router/key", Value="open-sesame", Type="String")
    listener = socket_in_netns(outside[0], socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((f"{OUTSIDE}.1", 0))
    listener.listen()
    log = {
        "logDriver": "awsfirelens",
        "options": {"Name": "datadog"},
        "secretOptions": [{"name": "apikey", "valueFrom": "/router/key"}],
    }
    front = Front(upstream=moto)
    with tempfile.TemporaryDirectory(prefix="fl-") as root:
        settings = {
            "FARGATE_AGENT_AWS_ENDPOINT_URL": f"http://{OUTSIDE}.1:{listener.getsockname()[1]}",
            "FARGATE_AGENT_ASSUME_ROLES": "false",
            "FARGATE_AGENT_AWS_CREDENTIALS_FILE": str(write_keys(Path(root))),
        }
        async with (
            front.serve(listener),
            make_stack(Path(root), private_containerd, outside, **settings) as stack,
        ):
            arn = stack.run(
                tool("web", f'echo "key: $apikey_0."; {LOOP}', logConfiguration=log),
                router(),
                executionRoleArn=ROLE.replace("123456789012", "000000000000"),
            )
            lines = await stack.wait_for_log(arn, "key: .")
            listens = events(await stack.wait_for_log(arn, '"listens"'))["listens"]

            assert "web: key: ." in lines
            assert "    apikey ${apikey_0}\n" in listens["configs"][CONFIGS["fluentbit"][1]]
            assert listens["environment"]["apikey_0"] == "open-sesame"
            assert "open-sesame" not in "".join(listens["configs"].values())
            records = [path.read_text() for path in Path(root, "agent").rglob("*.json")]
            assert records
            assert not any("open-sesame" in record for record in records)
            stack.stop(arn)
            await stack.wait_for(arn, "STOPPED")
            assert stack.leftovers(arn) == []
