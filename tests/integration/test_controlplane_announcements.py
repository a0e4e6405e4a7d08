"""Announcements from one control plane to the others."""

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy.engine import make_url

from fargate_agent.controlplane.state.announcements import EVENTS, Announcements
from fargate_agent.controlplane.state.postgres import relay_announcements
from fargate_agent.controlplane.state.store import announce, open_store
from tests.fixtures.controlplane import DEADLINE_S


@pytest.mark.parametrize(
    "options", [{}, {"ssl": "disable", "prepared_statement_cache_size": "0"}], ids=["plain", "more"]
)
async def test_announcement_arrives_with_the_options_of_the_database(
    options: dict[str, str], postgres_url: str
) -> None:
    url, here = make_url(postgres_url).update_query_dict(options), Announcements()
    with here.listening(EVENTS) as news:
        relay = asyncio.create_task(relay_announcements(url, here))
        async with asyncio.timeout(DEADLINE_S), open_store(url, Announcements()) as elsewhere:
            await news.wait()  # once the relay listens
            news.clear()
            async with elsewhere.write() as session:
                announce(session, EVENTS)
            await news.wait()
        relay.cancel()
        with suppress(asyncio.CancelledError):
            await relay
