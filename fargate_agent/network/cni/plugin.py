"""One run of a CNI plugin: configuration in, result or error out, within a deadline.

Source: containernetworking/cni, SPEC.md 1.1.0, sections 2 and 5.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from fargate_agent.network.cni.conflist import PluginConfig

MAX_OUTPUT_BYTES: Final = 1 << 20
PROGRAM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_BUSY_TRIES: Final = 5
_BUSY_WAIT_S: Final = 0.1
_READ_BYTES: Final = 1 << 16


class PluginError(Exception):
    """A plugin did not do what it was asked."""

    def __init__(self, plugin: str, verb: str, detail: str, code: int | None = None) -> None:
        """Record which plugin failed, at what, and the code it gave if it gave one."""
        said = detail if code is None else f"{detail} (code {code})"
        super().__init__(f"CNI plugin {plugin}, {verb}: {said}")
        self.code = code


def find_program(directories: Sequence[Path], plugin: PluginConfig) -> Path | None:
    """Return the plugin's program, of the first directory that has it; blocks."""
    for directory in directories:
        program = directory / plugin.type
        if program.is_file() and os.access(program, os.X_OK):
            return program
    return None


async def run_plugin(
    program: Path,
    verb: str,
    config: Mapping[str, Any],
    variables: Mapping[str, str],
    *,
    timeout_s: float,
    inherited: Sequence[int] = (),
) -> dict[str, Any] | None:
    """Return what the plugin printed, or None if it printed nothing.

    It has the descriptors `inherited` as long as it runs, also if the agent is killed.
    The plugin sees of the environment only `variables`, the verb and a PATH. When this returns,
    the plugin has ended; if it was stopped, so have those it started in its process group.

    Raises:
        PluginError: it failed, printed what is no object, or wasn't done in time.
    """
    stdin = os.memfd_create("cni-config")
    output = _Output()
    try:
        os.set_blocking(stdin, False)
        os.write(stdin, json.dumps(config).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        run = partial(
            asyncio.create_subprocess_exec,
            program,
            stdin=stdin,
            stdout=output.write_end,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": PROGRAM_PATH, **variables, "CNI_COMMAND": verb},
            cwd="/",
            start_new_session=True,
            pass_fds=inherited,
        )
        process = await _start(run, program.name, verb)
        output.listen(lambda: _kill(process))
        await _wait(process, program.name, verb, timeout_s)
        output.read()
        if output.is_over:
            detail = f"printed more than {MAX_OUTPUT_BYTES} bytes"
            raise PluginError(program.name, verb, detail)
        return _read_answer(program.name, verb, process.returncode, bytes(output.data))
    finally:
        output.close()
        os.close(stdin)


async def _start(
    run: Callable[[], Awaitable[asyncio.subprocess.Process]], name: str, verb: str
) -> asyncio.subprocess.Process:
    tries = 0
    while True:
        try:
            return await run()
        except OSError as error:
            tries += 1
            # A program that is just being installed.
            if error.errno != errno.ETXTBSY or tries == _BUSY_TRIES:
                detail = f"doesn't start: {error.strerror}"
                raise PluginError(name, verb, detail) from error
            await asyncio.sleep(_BUSY_WAIT_S)


async def _wait(
    process: asyncio.subprocess.Process, name: str, verb: str, timeout_s: float
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError as error:
        raise PluginError(name, verb, f"not done within {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    # Once it is reaped, its id may be another's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Output:
    """A pipe whose other end may stay open: a plugin's daemon may hold it."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)
        self._loop = asyncio.get_running_loop()
        self._stop: Callable[[], None] = lambda: None
        self.data = bytearray()
        self.is_over = False

    def listen(self, stop: Callable[[], None]) -> None:
        """Read what comes from now on; call `stop` when it is too much."""
        self._stop = stop
        self._loop.add_reader(self._read_end, self.read)

    def read(self) -> None:
        while not self.is_over:
            try:
                self.data += os.read(self._read_end, _READ_BYTES)
            except BlockingIOError:
                return
            if len(self.data) > MAX_OUTPUT_BYTES:
                self._loop.remove_reader(self._read_end)
                self.is_over = True
                self._stop()

    def close(self) -> None:
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self.write_end)


def _read_answer(name: str, verb: str, status: int | None, data: bytes) -> dict[str, Any] | None:
    answer: object = None
    if data.strip():
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = data
    # Some plugins print an error and exit with 0: amazon-vpc-cni-plugins after a panic.
    if isinstance(answer, dict) and isinstance(answer.get("msg"), str) and answer.get("code"):
        details = answer.get("details")
        said = f"{answer['msg']}; {details}" if details else answer["msg"]
        code = answer["code"]
        raise PluginError(name, verb, said, code if isinstance(code, int) else None)
    if status != 0:
        raise PluginError(name, verb, f"exited with {status} and named no error")
    if answer is not None and not isinstance(answer, dict):
        raise PluginError(name, verb, "printed what is no JSON object")
    return answer
