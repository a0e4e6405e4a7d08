import pytest

from fargate_agent.image.retry import GaveUpError, Retry, try_repeatedly
from fargate_agent.image.transport import RefusedError, TransferError

AT_ONCE = Retry(attempts=3, first_pause_s=0)


def test_pauses_grow_to_the_longest_and_vary_by_the_jitter() -> None:
    retry = Retry()

    for tries, pause_s in ((1, 1.1), (2, 2.2), (3, 4.4), (4, 5.0)):
        assert pause_s <= retry.pause_s(tries) <= pause_s * 1.2


async def test_call_is_repeated_until_it_succeeds() -> None:
    failures = [TransferError("one"), TransferError("two")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await try_repeatedly(AT_ONCE, call) == "done"


@pytest.mark.parametrize(
    ("kind", "tries"),
    [pytest.param(TransferError, 3, id="broken"), pytest.param(RefusedError, 1, id="refused")],
)
async def test_last_error_is_raised_with_the_number_of_tries(
    kind: type[TransferError], tries: int
) -> None:
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        raise kind(f"try {len(calls)}")

    with pytest.raises(GaveUpError, match=f"try {tries}") as caught:
        await try_repeatedly(AT_ONCE, call)
    assert caught.value.tries == tries
