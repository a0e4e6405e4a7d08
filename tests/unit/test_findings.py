"""What tasks have met is kept for the next agent, until the machine is started anew."""

import asyncio
from pathlib import Path

import pytest

from fargate_agent.findings import FILE, Finding, Findings

MET = Finding(what="containerd has no CAP_SYS_TIME", effect="containers go without it")


async def write(state_dir: Path, boot_id: str) -> None:
    findings = Findings()
    keeper = asyncio.create_task(findings.keep(state_dir, boot_id))
    findings.note(MET.what, MET.effect)
    async with asyncio.timeout(10):
        while not await asyncio.to_thread((state_dir / FILE).exists):
            await asyncio.sleep(0.01)
    keeper.cancel()


@pytest.mark.parametrize(("boot_id", "known"), [("a", [MET]), ("b", [])])
async def test_findings_are_there_after_a_restart_of_the_agent_and_not_of_the_machine(
    tmp_path: Path, boot_id: str, known: list[Finding]
) -> None:
    await write(tmp_path, "a")
    findings = Findings()

    await findings.recall(tmp_path, boot_id)

    assert list(findings) == known


async def test_finding_that_was_recalled_is_not_said_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await write(tmp_path, "a")
    caplog.clear()
    findings = Findings()
    await findings.recall(tmp_path, "a")

    findings.note(MET.what, MET.effect)

    assert not caplog.records


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"bootId": "a", "findings": [{"what": 1}]}', '{"bootId": "a"}']
)
async def test_file_that_makes_no_sense_counts_as_empty(tmp_path: Path, text: str) -> None:
    await asyncio.to_thread((tmp_path / FILE).write_text, text)
    findings = Findings()

    await findings.recall(tmp_path, "a")

    assert list(findings) == []


async def test_finding_that_can_not_be_written_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    findings = Findings()
    keeper = asyncio.create_task(findings.keep(tmp_path / "none", "a"))

    findings.note("one", "effect")
    async with asyncio.timeout(10):
        while "No such file" not in caplog.text:
            await asyncio.sleep(0.01)

    assert not keeper.done()
    keeper.cancel()
