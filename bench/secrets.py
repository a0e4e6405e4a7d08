"""The start of a task with twenty secrets, against one with none, in turn.

What stands for Secrets Manager and Systems Manager is on the address of the tasks' gateway, and
answers each request after one round trip. A connection to it takes no round trip: only TLS is dear.
"""

import asyncio
import json
import os
import socket
import ssl
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.images import write_archive
from bench.rig import SUBNET, Rig, new_task, rig, run
from bench.starts import IMAGE, WARM_UPS

ROUNDS = int(os.environ.get("BENCH_SECRETS_ROUNDS", "25"))
ROUND_TRIP_MS = int(os.environ.get("BENCH_SECRETS_ROUND_TRIP_MS", "50"))
EACH = 10
"""Of Secrets Manager, and of Systems Manager: a call for each, and one for all."""
ARN = "arn:aws:secretsmanager:us-east-1:000000000000:secret:s{}-AbCdEf"
ADDRESS = f"{SUBNET}.1"
IP_FREEBIND = 15
"""The address comes with the first task. Source: Linux, include/uapi/linux/in.h."""


@dataclass
class Services:
    """What stands for the services of AWS."""

    arrived_s: list[float] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request after a round trip."""
        body = await request.json()
        self.arrived_s.append(time.perf_counter())
        if request.headers["X-Amz-Target"].endswith(".GetParameters"):
            found = [
                {"Name": one, "Value": f"value of {one}", "Version": 1} for one in body["Names"]
            ]
            answer: dict[str, Any] = {"Parameters": found}
        else:
            answer = {"SecretString": f"value of {body['SecretId']}"}
        await asyncio.sleep(ROUND_TRIP_MS / 1e3)
        return web.json_response(answer, content_type="application/x-amz-json-1.1")

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None) -> AsyncIterator[str]:
        """Answer to tasks; the URL."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
            listener.bind((ADDRESS, 0))
            port = listener.getsockname()[1]
            server = web.Server(self.answer, access_log=None)
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(server, sock=listener, ssl=tls)
            try:
                yield f"http{'s' if tls else ''}://{ADDRESS}:{port}"
            finally:
                listening.close()
                await server.shutdown(1)


async def measure(root: Path) -> None:
    """Print medians and what was added."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    certificate = _make_certificate(root)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    print(f"start of a task, image present, n={ROUNDS}; {2 * EACH} secrets in {EACH + 1} calls,")
    print(f"each answered after {ROUND_TRIP_MS} ms; ratio and ms: medians of those of each round")
    for scheme, context in (("http", None), ("https", tls)):
        services = Services()
        async with services.serve(context) as url:
            environment = {
                "FARGATE_AGENT_HOST_PORTS": url.rpartition(":")[2],
                "FARGATE_AGENT_AWS": "real",
                "FARGATE_AGENT_AWS_ENDPOINT_URL": url,
                "SSL_CERT_FILE": str(certificate),
            }
            async with rig(root / scheme, environment) as machine:
                machine.ctr("images", "import", str(archive))
                await _compare(machine, services, scheme)


async def _compare(machine: Rig, services: Services, scheme: str) -> None:
    times: dict[bool, list[float]] = {False: [], True: []}
    asked: list[tuple[float, float]] = []
    for number in range(WARM_UPS + ROUNDS):
        for with_secrets in (False, True) if number % 2 else (True, False):
            services.arrived_s.clear()
            task = _with_secrets(new_task(IMAGE)) if with_secrets else new_task(IMAGE)
            sent_s = time.perf_counter()
            seconds = await machine.run(task)
            if with_secrets:
                _check(machine, task)
            await machine.stop(task)
            if number < WARM_UPS:
                continue
            times[with_secrets].append(seconds)
            if with_secrets:
                first_s, last_s = min(services.arrived_s), max(services.arrived_s)
                asked.append((first_s - sent_s, last_s - sent_s))
    without, given = times[False], times[True]
    pairs = list(zip(given, without, strict=True))
    added_ms = [(one - other) * 1e3 for one, other in pairs]
    ratio = statistics.median(one / other for one, other in pairs)
    median_ms, p90_ms = statistics.median(added_ms), statistics.quantiles(added_ms, n=10)[-1]
    print(
        f"{scheme:6} none {statistics.median(without) * 1e3:.0f} ms, "
        f"{2 * EACH} secrets {statistics.median(given) * 1e3:.0f} ms: ratio {ratio:.2f}, "
        f"{median_ms:.0f} ms added (p90 {p90_ms:.0f}), "
        f"{median_ms / ROUND_TRIP_MS:.2f} round trips; load {os.getloadavg()[0]:.1f}"
    )
    first, last = (statistics.median(one[index] for one in asked) * 1e3 for index in (0, 1))
    print(f"{'':6} the first request came after {first:.0f} ms, the last after {last:.0f} ms\n")


def _with_secrets(task: dict[str, Any]) -> dict[str, Any]:
    """Return the task with secrets, and with the keys to read them."""
    references = [ARN.format(one) for one in range(EACH)] + [f"/p/{one}" for one in range(EACH)]
    task["containers"][0]["secrets"] = [
        {"name": f"S{index}", "valueFrom": one} for index, one in enumerate(references)
    ]
    task["executionRoleCredentials"] = {
        "credentialsId": str(uuid.uuid4()),
        "roleArn": "arn:aws:iam::000000000000:role/bench",
        "accessKeyId": "ASIABENCH",
        "secretAccessKey": "bench",
        "sessionToken": "bench",
        "expiration": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }
    return task


def _check(machine: Rig, task: dict[str, Any]) -> None:
    """See that the container has them all.

    Raises:
        RuntimeError: it hasn't.
    """
    task_id = task["arn"].rpartition("/")[2]
    name = next(one for one in machine.ctr("containers", "ls", "-q").split() if task_id in one)
    spec = json.loads(machine.ctr("containers", "info", name))["Spec"]
    wanted = {
        f"{one['name']}=value of {one['valueFrom']}" for one in task["containers"][0]["secrets"]
    }
    if not wanted <= set(spec["process"]["env"]):
        raise RuntimeError(f"task {task_id} runs without its secrets")


def _make_certificate(root: Path) -> Path:
    """Return a file with a key and a certificate of the address, signed by itself."""
    file, key = root / "bench.pem", root / "bench.key"
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", f"/CN={ADDRESS}"),
        *("-addext", f"subjectAltName=IP:{ADDRESS}", "-keyout", str(key), "-out", str(file)),
    )
    file.write_text(file.read_text() + key.read_text())
    return file
