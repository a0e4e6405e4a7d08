"""Programs that keep credentials of registries, which a Docker `config.json` names.

`docker-credential-NAME get` reads the URL of a registry and prints what it keeps for it. NAME is
looked for in the agent's own PATH, never in what a task or an image says. It runs as the owner of
the file that names it: whoever may write the file gets no more rights by it than they have. It uses
the network of the machine, since it knows no task.

Source: docker-credential-helpers, README, "Development", and credentials/error.go; Docker CLI,
cli/config/configfile/file.go, `GetCredentialsStore`.
"""

import asyncio
import os
import pwd
import re
import shutil
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from fargate_agent.image.document import InvalidDocumentError, parse_document, tidy
from fargate_agent.image.reference import DOCKER_HUB

PREFIX: Final = "docker-credential-"
DEADLINE_S: Final = 10.0
"""A program that needs longer waits for a person, who isn't there."""

OUTLIVES_S: Final = 1.0
"""How much longer a program may run that nobody waits for any more."""

MAX_OUTPUT_BYTES: Final = 1 << 16
MAX_SAID_CHARS: Final = 200
IDENTITY_USER: Final = "<token>"
"""The user where the secret is an identity token. Source: Docker CLI, credentials/native_store.go,
`tokenUsername`."""

_HUB_INDEX: Final = "index.docker.io"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOTHING_KEPT: Final = "credentials not found in native keychain"


class ProgramError(Exception):
    """A program can't be run, or has no answer. The text holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSecret:
    """What a program keeps for a registry; it has no `repr` that shows anything."""

    username: str
    secret: str

    def __repr__(self) -> str:
        return "KeptSecret(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that is there, and whom it runs as."""

    path: str
    user: pwd.struct_passwd


def find_program(name: str, uid: int) -> Program:
    """Return the program of that name, which runs as the user `uid`; blocks.

    Raises:
        ProgramError: there is none, others could replace it, or it can't be run as that user.
    """
    if not _NAME.fullmatch(name):
        raise ProgramError(f"'{name[:80]}' can't be the end of a program's name")
    path = shutil.which(f"{PREFIX}{name}")
    if path is None:
        raise ProgramError(f"there is no program {PREFIX}{name} in the PATH of the agent")
    found = Path(path).stat()
    if found.st_uid not in {0, uid} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProgramError(
            f"{path} can be replaced by others than root and the owner of the file that names it"
        )
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        raise ProgramError(
            f"{PREFIX}{name} would run as the owner of the file that names it, and no user has the"
            f" uid {uid}"
        ) from None
    if os.geteuid() not in {0, uid}:
        raise ProgramError(f"{PREFIX}{name} can't be run as {user.pw_name}: the agent isn't root")
    return Program(path=path, user=user)


async def ask_program(
    name: str, uid: int, registry: str, deadline_s: float = DEADLINE_S
) -> KeptSecret | None:
    """Return what the program keeps for a registry, named as in an image; None if it's nothing.

    Raises:
        ProgramError: it can't be run, fails, or isn't done within the deadline.
    """
    program = await asyncio.to_thread(find_program, name, uid)
    url = f"https://{_HUB_INDEX}/v1/" if registry == DOCKER_HUB else registry
    try:
        process = await _start(program, deadline_s + OUTLIVES_S)
    except OSError as error:
        raise ProgramError(f"{program.path} can't be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(deadline_s):
            output = await _talk(process, url)
            code = await process.wait()
    except TimeoutError:
        _kill(process)  # if it has ended, what it started still has its output
        raise ProgramError(
            f"{PREFIX}{name} has no answer for {registry} within {deadline_s:g} s"
        ) from None
    finally:
        await _end(process)
    if code != 0:
        said = tidy(output.decode(errors="replace"), MAX_SAID_CHARS)
        if said == _NOTHING_KEPT:
            return None
        raise ProgramError(f"{PREFIX}{name} ended with exit code {code} for {registry}: {said}")
    return _parse(f"answer of {PREFIX}{name} for {registry}", output)


async def _start(program: Program, longest_s: float) -> asyncio.subprocess.Process:
    """Start the program so that it ends after so many seconds even if the agent is killed."""
    user, is_root = program.user, os.geteuid() == 0
    return await asyncio.create_subprocess_exec(
        *("timeout", "--signal=KILL", f"{longest_s:g}", program.path, "get"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd="/",
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": user.pw_dir,
            "USER": user.pw_name,
            "LOGNAME": user.pw_name,
        },
        start_new_session=True,
        user=user.pw_uid if is_root else None,
        group=user.pw_gid if is_root else None,
        extra_groups=os.getgrouplist(user.pw_name, user.pw_gid) if is_root else None,
    )


async def _talk(process: asyncio.subprocess.Process, url: str) -> bytes:
    stdin = cast(asyncio.StreamWriter, process.stdin)
    stdout = cast(asyncio.StreamReader, process.stdout)
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(url.encode())
        await stdin.drain()
    stdin.close()
    output = b""
    while piece := await stdout.read(MAX_OUTPUT_BYTES):
        output = (output + piece)[: MAX_OUTPUT_BYTES + 1]
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the program, unless it has ended by itself."""
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _parse(what: str, output: bytes) -> KeptSecret | None:
    if len(output) > MAX_OUTPUT_BYTES:
        raise ProgramError(f"{what} is larger than {MAX_OUTPUT_BYTES} bytes")
    try:
        answer = parse_document(what, output)
        username, secret = answer.text("Username", ""), answer.text("Secret", "")
    except InvalidDocumentError as error:
        raise ProgramError(str(error)) from None
    return KeptSecret(username=username, secret=secret) if secret else None
