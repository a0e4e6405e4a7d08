"""A real task makes its own network worse, from inside a container."""

import asyncio
from contextlib import suppress

import pytest

from tests.fixtures.stack import OUTSIDE, Stack, bind_outside, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

PORT = 8099
_BODY = f'{{"Port": {PORT}, "Protocol": "tcp", "TrafficType": "egress"}}'
_SCRIPT = f"""
fault=$ECS_AGENT_URI/fault/v1/network-blackhole-port
ask() {{ wget -qO- --post-data '{_BODY}' $fault/$1; }}
reach() {{ nc -w $1 {OUTSIDE}.1 {PORT} </dev/null 2>/dev/null || echo nobody; }}
echo "before: $(reach 30)"
echo "start: $(ask start)"
echo "status: $(ask status)"
echo "cut off: $(reach 2)"
wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task | grep -o '"FaultInjectionEnabled":[a-z]*'
wget -qO- --post-data '{{}}' $ECS_AGENT_URI/fault/v1/network-latency/status
echo "stop: $(ask stop)"
echo "after: $(reach 30)"
echo ready; sleep 1000
"""


@pytest.mark.usefixtures("registry")
async def test_task_cuts_itself_off_from_a_port_and_back(stack: Stack) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, sock=bind_outside(stack.outside, PORT)):
        arn = stack.run(tool("main", _SCRIPT), enableFaultInjection=True)
        lines = await stack.wait_for_log(arn, "main: ready")

    assert lines == [
        "main: before: hello",
        'main: start: {"Status":"running"}',
        'main: status: {"Status":"running"}',
        "main: cut off: nobody",
        'main: "FaultInjectionEnabled":true',
        'main: {"Status":"not-running"}',
        'main: stop: {"Status":"stopped"}',
        "main: after: hello",
        "main: ready",
    ]
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []
