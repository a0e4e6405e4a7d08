import asyncio
from contextlib import suppress

import pytest

from fargate_agent.parallel import first_of, together, until


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(text: str) -> None:
    raise ValueError(text)


async def test_together_raises_the_first_failure_itself_and_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def note_cancel() -> None:
        try:
            await forever()
        finally:
            cancelled.set()

    with pytest.raises(ValueError, match="first"):
        await together([note_cancel(), fail("first")])

    assert cancelled.is_set()


async def test_together_keeps_the_cause_of_a_failure() -> None:
    async def fail_from() -> None:
        try:
            await fail("cause")
        except ValueError as error:
            raise KeyError("effect") from error

    with pytest.raises(KeyError) as caught:
        await together([fail_from()])

    assert isinstance(caught.value.__cause__, ValueError)


async def test_together_lets_a_cancellation_through() -> None:
    job = asyncio.create_task(together([forever()]))
    await asyncio.sleep(0)

    job.cancel()

    with pytest.raises(asyncio.CancelledError):
        await job


async def test_first_of_returns_when_one_has_ended() -> None:
    async def end() -> None:
        return

    async with asyncio.timeout(5):
        await first_of(forever(), end())


async def test_first_of_raises_a_failure() -> None:
    with pytest.raises(ValueError, match="broken"):
        await first_of(forever(), fail("broken"))


@pytest.mark.parametrize("others", [1, 2])
async def test_a_timeout_after_a_failure_is_one(others: int) -> None:
    with pytest.raises(ValueError, match="broken"):
        await together([fail("broken"), *(forever() for _ in range(others))])

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await forever()


async def test_a_timeout_after_the_first_has_ended_is_one() -> None:
    async def end() -> None:
        return

    await first_of(forever(), end())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await forever()


async def test_a_cancellation_is_not_lost_for_a_failure_on_the_way() -> None:
    async def refuse_to_end() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        raise ValueError("broken")

    job = asyncio.create_task(together([refuse_to_end()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    job.cancel()

    with pytest.raises(asyncio.CancelledError):
        await job


async def test_a_cancellation_is_not_lost_while_the_others_of_a_failure_end() -> None:
    is_ending, may_end = asyncio.Event(), asyncio.Event()

    async def end_slowly() -> None:
        try:
            await forever()
        finally:
            is_ending.set()
            await may_end.wait()

    job = asyncio.create_task(together([end_slowly(), fail("broken")]))
    await is_ending.wait()

    job.cancel()
    await asyncio.sleep(0)
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await job


async def test_a_cancellation_is_not_lost_while_the_others_end_after_the_first() -> None:
    is_ending, may_end = asyncio.Event(), asyncio.Event()

    async def end_slowly() -> None:
        try:
            await forever()
        finally:
            is_ending.set()
            await may_end.wait()

    async def end() -> None:
        return

    job = asyncio.create_task(first_of(end_slowly(), end()))
    await is_ending.wait()

    job.cancel()
    await asyncio.sleep(0)
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await job


async def test_a_timeout_while_the_others_of_a_failure_end_is_one() -> None:
    has_expired = asyncio.Event()

    async def end_late() -> None:
        try:
            await forever()
        finally:
            asyncio.get_running_loop().call_later(0.01, has_expired.set)
            await has_expired.wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await together([end_late(), fail("broken")])

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_until_ends_the_body_when_stop_is_set() -> None:
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(stop.set_result, "enough")

    async with asyncio.timeout(5):
        async with until(stop):
            await forever()

    assert stop.result() == "enough"


async def test_until_lets_a_timeout_of_the_body_through() -> None:
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        async with until(stop), asyncio.timeout(0):
            await forever()
