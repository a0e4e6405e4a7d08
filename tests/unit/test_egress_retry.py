import asyncio
from collections.abc import Iterator

import pytest

from fargate_agent.backoff import Backoff
from fargate_agent.egress.retry import GaveUpError, Retry, Tries
from fargate_agent.egress.transport import RefusedError, TransferError, UnreachableError

AT_ONCE = Retry(attempts=3, unreachable_attempts=2, backoff=Backoff(first_s=0, longest_s=5))


def after(error: TransferError, seconds: float) -> TransferError:
    error.retry_after_s = seconds
    return error


async def test_call_is_repeated_until_it_succeeds_and_each_try_is_told() -> None:
    told: list[str] = []
    failures = [TransferError("two"), TransferError("one")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await Tries(retry=AT_ONCE, tell=told.append).repeat(call) == "done"
    assert told == ["try 2 of 3: one", "try 3 of 3: two", ""]


async def test_nothing_is_told_of_a_call_that_succeeds() -> None:
    told: list[str] = []

    async def call() -> str:
        return "done"

    await Tries(retry=AT_ONCE, tell=told.append).repeat(call)

    assert told == []


@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        pytest.param(TransferError, 3, id="broken"),
        pytest.param(UnreachableError, 2, id="unreachable"),
        pytest.param(RefusedError, 1, id="refused"),
    ],
)
async def test_last_error_is_raised_with_the_number_of_tries(
    kind: type[TransferError], tries: int
) -> None:
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        raise kind(f"try {len(calls)}")

    with pytest.raises(GaveUpError, match=f"try {tries}") as caught:
        await Tries(retry=AT_ONCE).repeat(call)
    assert caught.value.tries == tries == len(calls)


async def test_a_call_that_gets_further_each_time_uses_up_no_tries() -> None:
    reached = 0

    async def call() -> str:
        nonlocal reached
        reached += 1
        if reached < 10:
            raise TransferError("cut")
        return "done"

    assert await Tries(retry=AT_ONCE).repeat(call, lambda: reached) == "done"


async def test_a_call_that_only_gets_back_to_where_it_was_uses_up_tries() -> None:
    reached: Iterator[int] = iter([0, 5, 0, 5, 0, 5])

    async def call() -> None:
        raise TransferError("cut")

    with pytest.raises(GaveUpError) as caught:
        await Tries(retry=AT_ONCE).repeat(call, lambda: next(reached))
    assert caught.value.tries == 3


async def test_pause_is_as_long_as_the_server_asks() -> None:
    loop = asyncio.get_running_loop()
    failures = [after(TransferError("busy"), 0.2)]
    told: list[str] = []

    async def call() -> float:
        if failures:
            raise failures.pop()
        return loop.time()

    began = loop.time()

    assert await Tries(retry=AT_ONCE, tell=told.append).repeat(call) - began >= 0.2
    assert told[0] == "try 2 of 3: busy (in 1 s, as the server asks)"


async def test_pause_that_ends_after_the_deadline_is_not_begun() -> None:
    async def call() -> None:
        raise after(TransferError("busy"), 7200)

    tries = Tries(retry=AT_ONCE, ends_at=asyncio.get_running_loop().time() + 60)

    with pytest.raises(GaveUpError, match="^busy; the server asks to wait 7200 s") as caught:
        await tries.repeat(call)
    assert caught.value.tries == 1
