"""Containers of images that are unusual: very many layers, or other files than one expects."""

import os
import time
from pathlib import Path

import pytest

from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.image.manifest import MAX_LAYERS
from fargate_agent.logdriver.jsonfile import JsonFileDriver
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.loggers import PROGRAM
from tests.fixtures.machine import wait_for
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root


async def test_a_container_has_the_files_of_as_many_layers_as_an_image_may_have(
    bench: Bench,
) -> None:
    await bench.stack(MAX_LAYERS - 1, lambda upper, layer: (upper / f"layer{layer}").touch())

    finished = await bench.run("id -un; ls / | busybox grep -c ^layer", user="web")

    assert finished.output.split() == ["web", str(MAX_LAYERS - 1)]


@pytest.mark.parametrize("name", ["passwd", "group"])
async def test_an_image_with_a_pipe_for_a_user_database_is_refused_at_once(
    bench: Bench, name: str
) -> None:
    def fill(upper: Path, _: int) -> None:
        (upper / "etc").mkdir()
        os.mkfifo(upper / "etc" / name)

    await bench.stack(1, fill)
    task = bench.plan({})
    await bench.prepare(task)
    began = time.monotonic()

    with pytest.raises(CannotCreateContainerError, match=f"/etc/{name} of the image is a named"):
        await bench.create(task)

    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param(
            "etc/hosts", "the task's directory/storage/etc/hosts:/etc/hosts", id="directory"
        ),
        pytest.param("v/file", "not a directory", id="parent-is-a-file"),
    ],
)
async def test_neither_the_reason_nor_the_log_shows_paths_of_the_host(
    bench: Bench, private_containerd: PrivateContainerd, name: str, told: str
) -> None:
    def fill(upper: Path, _: int) -> None:
        (upper / "etc" / "hosts").mkdir(parents=True)
        (upper / "v").touch()

    await bench.stack(1, fill)
    mount = {"sourceVolume": "v", "containerPath": f"/{name}"}
    task = bench.plan({"mountPoints": [mount]}, volumes=[{"name": "v"}])
    container = task.containers[0]
    logger = JsonFileDriver(program=PROGRAM, max_size="1m", max_file=1)
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError) as error:
        await bench.runtime.create(task, container, bench.image(), logger.uri(task, container))

    await bench.runtime.stop(container)
    wait_for(lambda: bool(container.log_path.read_text()), "the logger to write", 10)
    for text in (error.value.detail, container.log_path.read_text()):
        assert "runc create failed" in text
        assert told in text
        assert str(bench.directory) not in text
        assert str(private_containerd.directory) not in text
