"""Calls of other plugins, such as the one that gives addresses.

Source: containernetworking/cni, SPEC.md 1.1.0, section 4; pkg/invoke.
"""

import errno
import json
import os
import select
import sys
import time
from importlib import import_module
from typing import Any, Final

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import (
    FAILED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    TRY_AGAIN_LATER,
    CniError,
)
from fargate_agent.cniplugins.results import Result, parse_result

TIMEOUT_S: Final = 60.0
MAX_OUTPUT_BYTES: Final = 1 << 20
_SIGKILL: Final = 9
"""The module `signal` takes long to load. Source: signal(7)."""
_BUSY_TRIES: Final = 5
_BUSY_WAIT_S: Final = 0.1
"""How often, and how long, a program is waited for that is just being installed."""
_OWN: Final = {"ecs-ipam": "fargate_agent.cniplugins.ecs_ipam"}
"""Plugins that are called in this process where this program is what would be found."""


def delegate(call: Call, plugin: str, verb: str, timeout_s: float = TIMEOUT_S) -> Result | None:
    """Have another plugin do something about the same call, with the same configuration.

    Returns what it made, if it is asked to ADD.

    Raises:
        CniError: it can't be found, or answers an error, or doesn't end in time.
        OSError: it can't be started.
    """
    program = find_program(call.path, plugin)
    if plugin in _OWN and _is_this(program):
        own = import_module(_OWN[plugin]).PLUGIN.verbs[verb](call._replace(verb=verb))
        return own if isinstance(own, Result) else None
    answer = _run(program, call.stdin, verb, timeout_s)
    if verb != "ADD":
        return None
    if answer is None:
        raise CniError(f"CNI plugin {plugin}: it answered nothing")
    return parse_result(answer, plugin)


def find_program(path: str, plugin: str) -> str:
    """Return the program of a plugin.

    Raises:
        CniError: there is none.
    """
    if not plugin or "/" in plugin or plugin in {".", ".."}:
        raise CniError(f"invalid plugin name: {plugin!r}", INVALID_CONFIG)
    if not path:
        raise CniError("required env variables [CNI_PATH] missing", INVALID_ENVIRONMENT)
    for directory in filter(None, path.split(":")):
        program = f"{directory}/{plugin}"
        if os.path.isfile(program) and os.access(program, os.X_OK):  # noqa: PTH113 - no Path
            return program
    raise CniError(f'failed to find plugin "{plugin}" in path [{path}]')


def _is_this(program: str) -> bool:
    try:
        return os.path.samefile(program, sys.argv[0])  # noqa: PTH121 - no Path
    except OSError:
        return False


def _run(program: str, stdin: bytes, verb: str, timeout_s: float) -> dict[str, Any] | None:
    """Return what a program prints. What it writes to stderr goes where this one's goes."""
    name = program.rpartition("/")[2]
    into = os.memfd_create("cni-config")
    out = os.memfd_create("cni-result")
    try:
        os.write(into, stdin)
        os.lseek(into, 0, os.SEEK_SET)
        status = _wait(_start(program, verb, into, out), name, timeout_s)
        os.lseek(out, 0, os.SEEK_SET)
        return _read_answer(name, status, os.read(out, MAX_OUTPUT_BYTES))
    finally:
        os.close(into)
        os.close(out)


def _start(program: str, verb: str, into: int, out: int) -> int:
    tries = 0
    while True:
        try:
            return os.posix_spawn(
                program,
                [program],
                {**os.environ, "CNI_COMMAND": verb},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, into, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                ],
                setpgroup=0,
            )
        except OSError as error:
            tries += 1
            if error.errno != errno.ETXTBSY or tries == _BUSY_TRIES:
                raise
            time.sleep(_BUSY_WAIT_S)


def _wait(pid: int, name: str, timeout_s: float) -> int:
    """Return how a child ended, which is not left running."""
    ended = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            text = f"CNI plugin {name}: it was not done within {timeout_s:g} s"
            raise CniError(text, TRY_AGAIN_LATER)
    except BaseException:
        os.killpg(pid, _SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _read_answer(name: str, status: int, output: bytes) -> dict[str, Any] | None:
    answer: object = None
    if output.strip():
        try:
            answer = json.loads(output)
        except (ValueError, RecursionError):
            answer = output
    # Some plugins print an error and exit with 0: amazon-vpc-cni-plugins after a panic.
    if isinstance(answer, dict) and isinstance(answer.get("msg"), str) and answer.get("code"):
        code, details = answer["code"], answer.get("details")
        text = f"{answer['msg']}; {details}" if details else answer["msg"]
        raise CniError(text, code if isinstance(code, int) else FAILED)
    if status != 0:
        raise CniError(f"CNI plugin {name}: it exited with {status} and named no error")
    if answer is not None and not isinstance(answer, dict):
        raise CniError(f"CNI plugin {name}: it printed what is no JSON object")
    return answer
