"""`fargate up` with images, and its tasks as boto3 sees them."""

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import boto3

from fargate_agent.cli.connection import parse_env
from tests.fixtures.cli import FARGATE, plain_env
from tests.images.build import archive_of
from tests.images.recipes import RECIPES

DEFINITIONS: Final = Path(__file__).with_name("definitions")
DEADLINE_S: Final = 180
POLL_S: Final = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task that runs."""

    stack: "Stack"
    arn: str

    def describe(self) -> dict[str, Any]:
        (task,) = self.stack.ecs.describe_tasks(cluster="default", tasks=[self.arn])["tasks"]
        return dict(task)

    def container(self, name: str) -> dict[str, Any]:
        containers = self.describe()["containers"]
        return dict(next(one for one in containers if one["name"] == name))

    @property
    def address(self) -> str:
        """Of its ENI."""
        (eni,) = self.describe()["attachments"]
        details = {one["name"]: one["value"] for one in eni["details"]}
        return str(details["privateIPv4Address"])

    def wait_healthy(self) -> None:
        """Return when the task is RUNNING and HEALTHY; fail if it stops before that."""

        def look() -> bool:
            task = self.describe()
            assert task["lastStatus"] not in {"DEPROVISIONING", "STOPPED"}, self.told()
            return (task["lastStatus"], task["healthStatus"]) == ("RUNNING", "HEALTHY")

        until(look, lambda: f"{self.arn} to be healthy: {self.told()}")

    def wait_container_ended(self, name: str) -> int:
        """Return the exit code of a container when it has one."""
        until(lambda: "exitCode" in self.container(name), lambda: f"{name} to end: {self.told()}")
        return int(self.container(name)["exitCode"])

    def logs(self) -> str:
        return self.stack.run("logs", self.arn)

    def told(self) -> str:
        """What it says of itself, for the text of a failed test."""
        task = self.describe()
        containers = [
            (one["name"], one["lastStatus"], one.get("exitCode"), one.get("reason"))
            for one in task["containers"]
        ]
        with contextlib.suppress(AssertionError):
            return f"{task.get('stoppedReason')} {containers}\n{self.logs()[-3000:]}"
        return f"{task.get('stoppedReason')} {containers}"

    def stop(self) -> dict[str, int | None]:
        """Stop it, and return the exit codes of its containers."""
        self.stack.ecs.stop_task(cluster="default", task=self.arn, reason="the test is over")
        until(
            lambda: self.describe()["lastStatus"] == "STOPPED",
            lambda: f"{self.arn} to stop: {self.told()}",
        )
        return {one["name"]: one.get("exitCode") for one in self.describe()["containers"]}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One `fargate up`."""

    state_dir: Path
    env: dict[str, str]
    ecs: Any

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of `fargate`, and return what it printed."""
        done = subprocess.run(
            [FARGATE, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str) -> Task:
        """Load the image, register the definition of that name, and run a task of it."""
        self.run("images", "load", str(archive_of(RECIPES[name])))
        definition = json.loads((DEFINITIONS / f"{name}.json").read_text())
        self.ecs.register_task_definition(**definition)
        answer = self.ecs.run_task(
            cluster="default",
            taskDefinition=name,
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-default"]}},
        )
        assert answer["failures"] == []
        return Task(stack=self, arn=str(answer["tasks"][0]["taskArn"]))


def until(done: Callable[[], bool], what: Callable[[], str]) -> None:
    """Return when `done` says so."""
    ends_at = time.monotonic() + DEADLINE_S
    while not done():
        if time.monotonic() > ends_at:
            raise AssertionError(f"waited for {what()}")
        time.sleep(POLL_S)


def get(url: str) -> str:
    """Ask a task by HTTP, past every proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return str(answer.read().decode())


@contextmanager
def open_stack(state_dir: Path) -> Iterator[Stack]:
    """Run `fargate up` with what definitions refer to."""
    log = state_dir.with_suffix(".log")
    with log.open("wb") as written:
        process = subprocess.Popen(
            [FARGATE, "up", "--verbose", "--state-dir", str(state_dir)],
            env=plain_env(FARGATE_AGENT_IMAGE_PULL_BEHAVIOR="prefer-cached"),
            stdout=written,
            stderr=written,
        )
    try:
        until(
            lambda: process.poll() is not None or "\nready" in f"\n{log.read_text()}",
            lambda: f"fargate up: {log.read_text()}",
        )
        variables = parse_env((state_dir / "env").read_text())
        ecs = boto3.client(
            "ecs",
            endpoint_url=variables["AWS_ENDPOINT_URL_ECS"],
            region_name="us-east-1",
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )
        stack = Stack(state_dir=state_dir, env=plain_env(**variables), ecs=ecs)
        stack.run("secrets", "set", "prod/db", stdin="geheim\n")
        yield stack
    finally:
        process.terminate()
        process.wait(timeout=DEADLINE_S)
