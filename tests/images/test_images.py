"""Images as people use them, run from definitions as people write them."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.images.stack import Stack, get, open_stack, until

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.timeout(300)]  # a database is set up


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with open_stack(tmp_path_factory.mktemp("images") / "up") as made:
        yield made


def test_nginx_serves_what_another_container_of_the_task_made(stack: Stack) -> None:
    task = stack.start("nginx")
    task.wait_healthy()

    assert get(f"http://{task.address}/") == "<h1>made by the task</h1>\n"
    assert '"GET / HTTP/1.1" 200' in task.logs()
    assert task.stop() == {"content": 0, "nginx": 0}


def test_redis_keeps_its_data_on_the_volume_as_its_own_user(stack: Stack) -> None:
    task = stack.start("redis")
    task.wait_healthy()
    assert task.wait_container_ended("seed") == 0, task.told()

    with socket.create_connection((task.address, 6379), timeout=30) as connection:
        connection.sendall(b"GET greeting\r\n")
        assert connection.recv(4096) == b"$5\r\nhello\r\n"
    (owner,) = re.findall(r"-rw\S+ +1 +(\d+) .* appendonly\.aof\.manifest", task.logs())
    assert int(owner) > 0
    assert task.stop() == {"redis": 0, "seed": 0}


def test_postgres_sets_itself_up_once_and_answers(stack: Stack) -> None:
    task = stack.start("postgres")
    task.wait_healthy()
    assert task.wait_container_ended("migrate") == 0, task.told()

    async def ask() -> int:
        connection = await asyncpg.connect(
            host=task.address, user="postgres", password="geheim", database="app", ssl=False
        )
        try:
            return int(await connection.fetchval("select n + 1 from visits"))
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 42
    assert task.stop() == {"db": 0, "migrate": 0}
    assert "geheim" not in task.logs()


def test_mariadb_writes_to_its_volume_under_a_root_that_is_read_only(stack: Stack) -> None:
    task = stack.start("mariadb")
    task.wait_healthy()

    assert task.wait_container_ended("client") == 0, task.told()
    assert "client | 42\n" in task.logs()
    assert task.stop() == {"db": 0, "client": 0}


def test_prometheus_writes_as_nobody_and_scrapes_itself(stack: Stack) -> None:
    task = stack.start("prometheus")
    task.wait_healthy()

    def has_scraped() -> bool:
        answer = json.loads(get(f"http://{task.address}:9090/api/v1/query?query=up"))
        return [one["value"][1] for one in answer["data"]["result"]] == ["1"]

    until(has_scraped, task.told)
    assert task.stop() == {"prometheus": 0}


def test_python_writes_to_tmp_under_a_root_that_is_read_only(stack: Stack) -> None:
    task = stack.start("python")
    task.wait_healthy()

    answer = json.loads(get(f"http://{task.address}:8000/"))
    assert (answer["greeting"], answer["uid"]) == ("hello from the task", 1000)
    assert answer["temporary"].startswith("/tmp/")
    assert task.stop() == {"app": 0}


def test_node_ends_by_sigterm_below_an_init(stack: Stack) -> None:
    task = stack.start("node")
    task.wait_healthy()

    assert get(f"http://{task.address}:3000/orders") == "hello from node at /orders\n"
    assert task.stop() == {"api": 143}


def test_tomcat_sees_the_memory_of_its_container(stack: Stack) -> None:
    task = stack.start("tomcat")
    task.wait_healthy()

    page = get(f"http://{task.address}:8080/").split()
    assert page[:2] == ["max", "memory"]
    assert 300 <= int(page[2]) <= 768 // 2
    assert task.stop() == {"tomcat": 143}


def test_nothing_is_left_of_the_tasks(stack: Stack) -> None:
    names = [path.name for path in (stack.state_dir / "agent/tasks").iterdir()]
    assert names == []
    mounts = Path("/proc/self/mounts").read_text()
    assert f"{stack.state_dir}/agent/tasks" not in mounts
