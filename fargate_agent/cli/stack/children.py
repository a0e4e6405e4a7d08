"""Programs that are kept alive: started again when they end, and gone when this process is gone.

A child has a session of its own, so that Ctrl-C on the terminal reaches `fargate up` alone, and is
killed by the kernel if `fargate up` ends without stopping it.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.cli.failure import CliError
from fargate_agent.parallel import first_of

FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 10.0
STEADY_S: Final = 30
"""A child that lived so long is started again after the first pause."""
EARLY_DEATHS: Final = 3
"""How often a child may end before the stack is ready."""
HURRIED_S: Final = 1
"""Time between SIGTERM and SIGKILL when there is no more time."""
LAST_LINES: Final = 5
_TAIL_BYTES: Final = 8192
_BOUND_TO_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""Runs a program that ends with its parent, in the place of itself. Source: util-linux."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    """The whole environment; it holds keys."""
    log: Path
    """Where its output goes. The file of the run before is kept beside it, as `.1`."""
    stop_timeout_s: float
    """Time between SIGTERM and SIGKILL."""


class Child:
    """One program that is kept alive."""

    def __init__(
        self,
        program: Program,
        say: Callable[[str], None],
        give_up: Callable[[CliError], None],
        hurry: asyncio.Event,
    ) -> None:
        """Remember what to run.

        `give_up` hears of a program that doesn't even start well; `hurry` is set when it has no
        more time to end by itself.
        """
        self.program = program
        self._say = say
        self._give_up = give_up
        self._hurry = hurry
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._steady = False
        self._deaths = 0

    def settle(self) -> None:
        """From now on it is started again however often it ends."""
        self._steady = True

    async def stop(self) -> None:
        """End the program, by force if it takes too long. May be repeated."""
        self._stop.set()
        await self._ended.wait()

    async def keep_alive(self) -> None:
        """Run the program until `stop` is called."""
        self._ended.clear()
        try:
            await asyncio.to_thread(_turn_log, self.program.log)
            await self._run_again_and_again()
        except OSError as error:
            self._give_up(CliError(f"{self.program.log}: {error.strerror}"))
        finally:
            self._ended.set()

    async def _run_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            started = loop.time()
            how = await self._run()
            if self._stop.is_set():
                return
            self._deaths += 1
            hopeless = how == _render_end(os.EX_CONFIG)  # a mistake that a person has to mend
            if not self._steady and (hopeless or self._deaths >= EARLY_DEATHS):
                await self._complain(how)
                return
            if loop.time() - started >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            self._say(f"{self.program.name} {how}; starting it again in {pause_s:g} s")
            await first_of(asyncio.sleep(pause_s), _wait(self._stop))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _run(self) -> str:
        """Run the program until it ends or has to; say how it ended."""
        try:
            with self.program.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *_BOUND_TO_PARENT,
                    *self.program.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.program.env,
                    start_new_session=True,
                )
        except OSError as error:
            return f"can't be started: {error}"
        await first_of(_wait(process), _wait(self._stop))
        if process.returncode is None:
            await self._end(process)
        return _render_end(await process.wait())

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        process.terminate()
        await first_of(
            _wait(process), asyncio.sleep(self.program.stop_timeout_s), self._until_hurried()
        )
        if process.returncode is None:
            self._say(f"{self.program.name} doesn't end by itself: killing it")
            process.kill()

    async def _until_hurried(self) -> None:
        await self._hurry.wait()
        await asyncio.sleep(HURRIED_S)

    async def _complain(self, how: str) -> None:
        for line in await asyncio.to_thread(_read_last_lines, self.program.log):
            self._say(f"{self.program.name}: {line}")
        times = f", {self._deaths} times" if self._deaths > 1 else ""
        self._give_up(CliError(f"{self.program.name} {how}{times}; see {self.program.log}"))


async def _wait(end: asyncio.Event | asyncio.subprocess.Process) -> None:
    await end.wait()


def _turn_log(log: Path) -> None:
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)


def _read_last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return list(deque((line for line in text.splitlines() if line.strip()), LAST_LINES))


def _render_end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
