"""One run of a plugin: a call in, an answer out.

Source: containernetworking/cni, SPEC.md 1.1.0, sections 2, 3 and 5.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn

from fargate_agent import __version__
from fargate_agent.cniplugins.call import Call, read_call, read_config
from fargate_agent.cniplugins.errors import (
    FAILED,
    INTERNAL,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    CniError,
)
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.journal import DEFAULT_LEVEL, Journal
from fargate_agent.cniplugins.results import Result, render_result
from fargate_agent.cniplugins.versions import NEWEST, VERSIONS
from fargate_agent.network.blocking import NetlinkError

MAX_CONFIG_BYTES: Final = 1 << 20


class Plugin(NamedTuple):
    """A plugin."""

    name: str
    verbs: Mapping[str, Callable[[Call], Result | None]]
    """What it does for ADD, DEL, CHECK, GC and STATUS. Only ADD returns a result.

    Each may raise CniError, NetlinkError or OSError.
    """
    capabilities: tuple[str, ...] = ()
    """What `--capabilities` lists."""
    log_file_variable: str = "ECS_CNI_LOG_FILE"
    log_level_variable: str = "ECS_CNI_LOGLEVEL"


def run(plugin: Plugin) -> NoReturn:
    """Do what the environment says, print the answer, and end the process."""
    version = NEWEST

    def tell_fault(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        _print(_render_error(version, CniError(f"internal error: {error!r}", INTERNAL)))
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell_fault
    if len(sys.argv) > 1:
        _end(_answer_flag(plugin, sys.argv[1:]))
    journal = Journal(
        plugin.name,
        os.environ.get(plugin.log_file_variable, ""),
        os.environ.get(plugin.log_level_variable, DEFAULT_LEVEL),
    )
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(f"CNI {plugin.name} plugin {__version__}\n{_describe_versions()}\n")
        _end(0)
    stdin = sys.stdin.buffer.read(MAX_CONFIG_BYTES)
    version = _guess_version(stdin)
    try:
        answer = _answer(plugin, stdin, journal)
    except (CniError, NetlinkError, OSError) as error:
        refusal = _describe(error)
        journal.error(f"{os.environ['CNI_COMMAND']}: {refusal.message} (code {refusal.code})")
        _print(_render_error(version, refusal))
        _end(1)
    if answer is not None:
        _print(answer)
    _end(0)


def _answer(plugin: Plugin, stdin: bytes, journal: Journal) -> dict[str, Any] | None:
    if os.environ["CNI_COMMAND"] == "VERSION":
        return {"cniVersion": _guess_version(stdin), "supportedVersions": VERSIONS}
    call = read_call(os.environ, stdin, journal)
    do = plugin.verbs.get(call.verb)
    if do is None:
        raise CniError(f"unknown CNI_COMMAND: {call.verb}", INVALID_ENVIRONMENT)
    result = do(call)
    journal.info(f"{call.verb} {call.container_id} {call.ifname}: done")
    return None if result is None else render_result(result, call.version)


def _guess_version(stdin: bytes) -> str:
    """Return in which version to answer, also to a configuration that can't be read."""
    try:
        version = Fields(read_config(stdin)).value("cniVersion")
    except CniError:
        return NEWEST
    return version if version in VERSIONS else NEWEST


def _describe(error: CniError | NetlinkError | OSError) -> CniError:
    if isinstance(error, CniError):
        return error
    return CniError(str(error), IO_FAILURE if isinstance(error, OSError) else FAILED)


def _render_error(version: str, error: CniError) -> dict[str, Any]:
    return {"cniVersion": version, "code": error.code, "msg": error.message}


def _answer_flag(plugin: Plugin, flags: list[str]) -> int:
    """Source: amazon-ecs-cni-plugins, version/print.go and capabilities/capabilities.go."""
    if flags in (["--version"], ["-version"]):
        _print({"version": __version__, "dirty": False, "gitShortHash": ""})
        return 0
    if flags in (["--capabilities"], ["-capabilities"]):
        _print({"capabilities": plugin.capabilities})
        return 0
    sys.stderr.write(f"usage: {plugin.name} [--version | --capabilities]\n")
    return 2


def _describe_versions() -> str:
    return f"CNI protocol versions supported: {', '.join(VERSIONS)}"


def _end(status: int) -> NoReturn:
    """End at once: to take its modules apart takes Python two milliseconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
