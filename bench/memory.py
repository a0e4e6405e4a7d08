"""Resident memory of the agent: idle, and with many tasks."""

from pathlib import Path

from bench.images import write_archive
from bench.rig import new_task, rig
from bench.starts import IMAGE

TASKS = 50
MIB = 1024 * 1024


async def measure(root: Path) -> None:
    """Print the figures."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    async with rig(root) as machine:
        idle = machine.agent_rss_bytes()
        machine.ctr("images", "import", str(archive))
        tasks = [new_task(IMAGE) for _ in range(TASKS)]
        for task in tasks:
            await machine.run(task)
        loaded = machine.agent_rss_bytes()
        for task in tasks:
            await machine.stop(task)
        after = machine.agent_rss_bytes()
    print("\nresident memory of the agent")
    print(f"{'idle':32}{idle / MIB:7.1f} MB")
    each = (loaded - idle) / TASKS / MIB
    print(f"{f'with {TASKS} tasks':32}{loaded / MIB:7.1f} MB   {each:.2f} MB a task")
    print(f"{'after them':32}{after / MIB:7.1f} MB")
