"""Traces of starts: what is sent, and what becomes of them when nobody takes them."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from fargate_agent import setting_faults
from fargate_agent.controlplane.telemetry.trace_header import find_trace
from fargate_agent.plan import plan_task
from fargate_agent.settings import AgentSettings
from fargate_agent.task.phases import MAX_PHASES, Phase, Phases, current_phases, timing
from fargate_agent.task.runner import TaskRun
from fargate_agent.telemetry.figures import AgentFigures
from fargate_agent.telemetry.traces import Traces
from tests.fixtures.collector import Collector
from tests.fixtures.machine import held_port
from tests.messages import TASK_ARN, site, task_message

PHASES = (
    Phase(name="total", subject="", began_s=100.0, took_s=2.0, failed=True),
    Phase(name="pull", subject="web:1", began_s=100.5, took_s=1.0, failed=True),
)


def make_run(root: Path) -> TaskRun:
    plan = plan_task(task_message(), site(root), "key")
    return TaskRun(plan=plan, stop=asyncio.get_running_loop().create_future(), is_new=True)


async def test_failed_start_is_sent_with_its_parts(tmp_path: Path) -> None:
    async with Collector().serving() as collector:
        traces = await asyncio.to_thread(Traces, collector.url)

        traces.note_start(make_run(tmp_path), PHASES)
        await traces.close()

    root = next(span for span in collector.spans if span.name == "start task")
    pull = next(span for span in collector.spans if span.name == "pull")
    assert (root.failed, pull.failed) == (True, True)
    assert (root.parent_id, pull.parent_id) == ("", root.span_id)
    assert (root.began_ns, root.ended_ns) == (100 * 10**9, 102 * 10**9)
    assert root.attributes["aws.ecs.task.arn"] == TASK_ARN
    assert pull.attributes["container.image.name"] == "web:1"
    assert collector.services == {"fargate-agent"}


async def test_nobody_waits_for_a_collector_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait would be one for SEND_TIMEOUT_S."""
    monkeypatch.setattr("fargate_agent.telemetry.traces.CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("fargate_agent.telemetry.traces.SEND_TIMEOUT_S", 60)
    monkeypatch.setattr("fargate_agent.telemetry.traces.QUEUE_SPANS", 512)
    with held_port() as port:
        traces = await asyncio.to_thread(Traces, f"http://127.0.0.1:{port}")
        run, began_s = make_run(tmp_path), time.monotonic()

        for _ in range(512 // len(PHASES) + 1):  # more than the queue takes
            traces.note_start(run, PHASES)

        assert time.monotonic() - began_s < 5
        await traces.close()
        await asyncio.get_running_loop().shutdown_default_executor()  # as the agent's end does
        assert time.monotonic() - began_s < 15
    assert "the last traces are lost" in caplog.text


async def test_start_is_counted_though_its_trace_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no trace")

    figures = AgentFigures(export=fail)

    figures.note_start(make_run(tmp_path), PHASES)

    assert (figures.failed_starts, figures.failed_pulls) == (1, 1)
    assert "no trace" in caplog.text


def test_setting_is_refused_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AgentSettings(otlp_endpoint="http://127.0.0.1:4318")
    assert list(setting_faults.find_otlp_fault(settings)) == []

    monkeypatch.setattr(setting_faults, "find_spec", lambda _: None)

    ((key, text),) = setting_faults.find_otlp_fault(settings)
    assert key == "otlp_endpoint"
    assert "fargate-agent[otel]" in text
    assert list(setting_faults.find_otlp_fault(AgentSettings())) == []


def test_phases_are_taken_once_when_the_start_is_over() -> None:
    phases = Phases()
    token = current_phases.set(phases)
    try:
        with timing("netns", "n"):
            assert phases.take() == ()
        with pytest.raises(OSError, match="no"), timing("pull", "web:1"):
            raise OSError("no")
        for _ in range(MAX_PHASES):
            with timing("create", "web"):
                pass
        phases.end(failed=True)
        with timing("start", "too late"):
            pass
    finally:
        current_phases.reset(token)

    total, first, second, *others = phases.take()

    assert (total.name, total.failed) == ("total", True)
    assert (first.name, first.failed) == ("netns", False)
    assert (second.name, second.failed) == ("pull", True)
    assert len(others) == MAX_PHASES - 2
    assert phases.take() == ()


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", True),
        ("", False),
        (f"00-{'a' * 32}-{'b' * 16}-01\n", False),
        (f"00-{'a' * 31}-{'b' * 16}-01", False),
    ],
)
def test_header_of_a_trace(header: str, is_one: bool) -> None:
    assert find_trace(header) == (header if is_one else None)


def test_every_part_of_a_start_that_is_timed_is_counted() -> None:
    sources = (Path(setting_faults.__file__).parent / "task").glob("*.py")
    timed = {
        name
        for source in sources
        for name in re.findall(r'(?:phase=|timing\()"(\w+)"', source.read_text())
    }

    assert "volumes" in timed
    assert timed | {"total"} <= AgentFigures().starts.keys()
