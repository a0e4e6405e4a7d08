"""Transactions that are cut off: nothing of them stays, no lock either."""

import asyncio
import random
import threading
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import Cluster
from fargate_agent.controlplane.state.store import Store, announce, open_store

ROUNDS = 40


async def write_and_wait(store: Store, name: str) -> None:
    async with store.write() as session:
        session.add(Cluster(name=name, status="ACTIVE", document={}, tags=[]))
        await session.flush()
        while True:
            await session.scalars(select(Cluster))


@pytest.mark.root
async def test_cancelled_writers_leave_neither_rows_nor_locks(
    database: str | None, tmp_path: Path
) -> None:
    generator = random.Random(1)
    threads = set(threading.enumerate())
    url = make_url(database or f"sqlite:///{tmp_path / 'state.db'}")
    cut_off: list[BaseException] = []  # what an error refers to may hold up the end of a lock
    async with open_store(url, Announcements()) as store:
        for number in range(ROUNDS):
            job = asyncio.create_task(write_and_wait(store, f"lost-{number}"))
            await asyncio.sleep(generator.uniform(0, 0.01))
            while not job.done():  # again and again, as nested scopes that all give up
                job.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await job
            cut_off.append(cancelled.value)

            async with asyncio.timeout(5), store.write() as session:
                session.add(Cluster(name=f"kept-{number}", status="ACTIVE", document={}, tags=[]))

        async with store.read() as session:
            found = (await session.scalars(select(Cluster.name))).all()

    assert sorted(found) == sorted(f"kept-{number}" for number in range(ROUNDS))
    new = set(threading.enumerate()) - threads
    assert not [thread for thread in new if "sqlite" in thread.name]


async def write_and_tell(store: Store, ending: asyncio.Event) -> None:
    async with store.write() as session:
        session.add(Cluster(name="kept", status="ACTIVE", document={}, tags=[]))
        announce(session, "topic")
        ending.set()


@pytest.mark.root
async def test_what_a_writer_that_is_cancelled_in_its_commit_has_written_is_told(
    database: str | None, tmp_path: Path
) -> None:
    url = make_url(database or f"sqlite:///{tmp_path / 'state.db'}")
    announcements = Announcements()
    async with open_store(url, announcements) as store:
        with announcements.listening("topic") as news:
            ending = asyncio.Event()
            job = asyncio.create_task(write_and_tell(store, ending))
            await ending.wait()
            job.cancel()

            with pytest.raises(asyncio.CancelledError):
                await job
            is_told = news.is_set()

        async with store.read() as session:
            assert (await session.scalars(select(Cluster.name))).all() == ["kept"]
    assert is_told
