"""How containers begin and end under real containerd and runC."""

import pytest

from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("exit 0", 0, id="well"),
        pytest.param("exit 7", 7, id="code"),
        pytest.param("kill -9 $$; sleep 9", 137, id="killed"),
    ],
)
async def test_wait_gives_the_exit_code(bench: Bench, script: str, code: int) -> None:
    finished = await bench.run(script)

    assert finished.status.code == code
    assert not finished.status.oom_killed
