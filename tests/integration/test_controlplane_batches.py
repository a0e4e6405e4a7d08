"""Changes that wait together are one transaction, and each caller has an outcome of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.batches import MAX_BATCH
from fargate_agent.controlplane.state.model import Cluster
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store, open_store

pytestmark = pytest.mark.root

REFUSED = "refused"
BROKEN = "broken"


class Work:
    """Makes clusters, but not one that is called `REFUSED`; one called `BROKEN` ends it."""

    def __init__(self) -> None:
        self.batches: list[Sequence[str]] = []

    async def make_clusters(self, session: Session, names: Sequence[str]) -> list[Exception | str]:
        """Return the name of each as its result, or what is wrong with it."""
        self.batches.append(names)
        wanted = [name for name in names if name != REFUSED]
        session.add_all(
            Cluster(name=name, status="ACTIVE", document={}, tags=[]) for name in wanted
        )
        await session.flush()
        if BROKEN in names:
            raise RuntimeError(BROKEN)
        return [ValueError(name) if name == REFUSED else name for name in names]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def store(database: str | None, tmp_path: Path) -> AsyncIterator[Store]:
    url = make_url(database or f"sqlite:///{tmp_path / 'state.db'}")
    async with open_store(url, Announcements()) as opened:
        yield opened


async def start_together(store: Store, work: Work, names: Sequence[str]) -> list[asyncio.Task[str]]:
    """Let all of them wait for the turn of a writer, and then begin."""
    async with store.write():
        jobs = [
            asyncio.create_task(store.write_together(work.make_clusters, name)) for name in names
        ]
        for _ in names:
            await asyncio.sleep(0)
    return jobs


async def read_names(store: Store) -> list[str]:
    async with store.read() as session:
        return sorted(await session.scalars(select(Cluster.name)))


async def test_changes_that_wait_are_one_transaction(store: Store, work: Work) -> None:
    names = [f"cluster-{number:02}" for number in range(10)]

    jobs = await start_together(store, work, names)
    await asyncio.wait(jobs)

    assert work.batches == [names]
    assert await read_names(store) == names


async def test_a_transaction_has_a_bounded_number_of_changes(store: Store, work: Work) -> None:
    names = [f"cluster-{number:02}" for number in range(MAX_BATCH + 1)]

    jobs = await start_together(store, work, names)
    await asyncio.wait(jobs)

    assert work.batches == [names[:MAX_BATCH], names[MAX_BATCH:]]


async def test_each_caller_gets_the_result_of_its_own_change(store: Store, work: Work) -> None:
    jobs = await start_together(store, work, ["first", REFUSED, "last"])
    await asyncio.wait(jobs)

    assert (jobs[0].result(), jobs[2].result()) == ("first", "last")


async def test_a_change_that_is_refused_fails_alone(store: Store, work: Work) -> None:
    first, refused, last = await start_together(store, work, ["first", REFUSED, "last"])
    await asyncio.wait([first, refused, last])

    assert isinstance(refused.exception(), ValueError)
    assert first.exception() is last.exception() is None
    assert await read_names(store) == ["first", "last"]


async def test_a_change_that_the_database_refuses_fails_alone(store: Store, work: Work) -> None:
    await store.write_together(work.make_clusters, "there")

    first, double, last = await start_together(store, work, ["first", "there", "last"])
    await asyncio.wait([first, double, last])

    assert isinstance(double.exception(), IntegrityError)
    assert first.exception() is last.exception() is None
    assert await read_names(store) == ["first", "last", "there"]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_change_that_nobody_foresaw_fails_alone(
    place: int, store: Store, work: Work
) -> None:
    names = ["first", "last"]
    names.insert(place, BROKEN)

    jobs = await start_together(store, work, names)
    await asyncio.wait(jobs)

    assert isinstance(jobs.pop(place).exception(), RuntimeError)
    assert [job.exception() for job in jobs] == [None, None]
    assert await read_names(store) == ["first", "last"]


async def test_whoever_is_cancelled_takes_nobody_along(store: Store, work: Work) -> None:
    leader, other = await start_together(store, work, ["leader", "other"])

    leader.cancel()
    await asyncio.wait([leader, other])

    assert leader.cancelled()
    assert other.exception() is None
    assert "other" in await read_names(store)
