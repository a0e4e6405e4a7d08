"""Metrics as Prometheus reads them: its own parser says what it has understood."""

import asyncio
import logging

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fargate_agent.measures.exposition import Family, render
from fargate_agent.measures.histogram import Histogram
from fargate_agent.measures.listener import listening
from fargate_agent.measures.log_lines import LogLines
from fargate_agent.telemetry.agent_families import AgentState, agent_families
from fargate_agent.telemetry.figures import AgentFigures


def parse(text: bytes) -> dict[tuple[str, ...], float]:
    """Return each value by the name of its sample and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((0.1, 1))
    for value in (0.1, 0.5, 7):
        histogram.observe(value)

    text = render([Family(name="h", kind="histogram", help="x", values={(): histogram})])

    assert parse(text) == {
        ("h_bucket", "0.1"): 1,
        ("h_bucket", "1.0"): 2,
        ("h_bucket", "+Inf"): 3,
        ("h_count",): 3,
        ("h_sum",): 7.6,
    }
    assert histogram.count == 3


def test_labels_may_hold_any_text() -> None:
    odd = 'a "b"\n\\c'
    family = Family(name="c", kind="counter", help="x", labels=("l",), values={(odd,): 2})

    assert parse(render([family])) == {("c_total", odd): 2}


def test_agent_says_how_it_stands() -> None:
    state = AgentState(
        tasks={"RUNNING": 2},
        connected=True,
        connections=3,
        received_frames=4,
        sent_frames=5,
        dropped_frames=6,
        waiting_frames=7,
        waiting_changes=8,
        log_lines={"error": 9},
    )
    figures = AgentFigures()
    figures.starts["pull"].observe(0.2)

    found = parse(render(agent_families(figures, state)))

    assert found["fargate_agent_tasks", "RUNNING"] == 2
    assert found["fargate_agent_acs_connected",] == 1
    assert found["fargate_agent_acs_connections_total",] == 3
    assert found["fargate_agent_telemetry_frames_dropped_total",] == 6
    assert found["fargate_agent_log_lines_total", "error"] == 9
    assert found["fargate_agent_task_start_seconds_count", "pull"] == 1
    assert found["fargate_agent_task_start_seconds_bucket", "0.1", "pull"] == 0
    assert found["fargate_agent_task_start_seconds_bucket", "0.25", "pull"] == 1


def test_lines_of_the_log_are_counted_while_somebody_wants_it() -> None:
    with LogLines() as lines:
        logging.getLogger("some.module").warning("one")
        logging.getLogger("some.module").error("two")
        logging.getLogger("some.module").info("three")
    logging.getLogger("some.module").error("four")

    assert lines.counts == {"warning": 1, "error": 1, "critical": 0}


async def test_listener_answers_metrics_and_nothing_else() -> None:
    async def text() -> bytes:
        return b"a 1\n"

    async with listening("http://127.0.0.1:0", text) as port, aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert (answer.status, await answer.read()) == (200, b"a 1\n")
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        async with http.get(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 404
        async with http.post(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 405


async def test_listener_says_so_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fargate_agent.measures.listener.ANSWER_TIMEOUT_S", 0.05)

    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    async with (
        listening("http://127.0.0.1:0", never) as port,
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert answer.status == 503
