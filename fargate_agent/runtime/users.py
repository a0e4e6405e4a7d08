"""Which user a container runs as: `user[:group]`, looked up in the image's own files.

Docker's rules: names and numbers are looked up in /etc/passwd and /etc/group of the image; a
number needs no entry; without a group, the user's own and those it is a member of apply. They
apply to root too, so the files are always read, once per image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fargate_agent.errors import CannotCreateContainerError

MAX_ID: Final = 2**31 - 1
"""Source: moby, `user.GetExecUser`: ids are 32 bits, signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFiles:
    """The text of an image's user database; empty for a file that it doesn't have."""

    passwd: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUser:
    """Whom the first process runs as."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A line of passwd or group that can be understood."""

    name: str
    uid: int
    """Of a group: its gid."""
    gid: int
    members: tuple[str, ...]


def resolve_user(user: str, files: UserFiles) -> ContainerUser:
    """Return the ids that `user`, e.g. `app`, `app:staff`, `1000` or an empty one, stands for.

    Raises:
        CannotCreateContainerError: no such name, or a number out of range.
    """
    name, _, group = user.partition(":")
    known = _find(name or "0", _parse(files.passwd, gid_column=3))
    if known:
        uid, gid = known.uid, known.gid
    else:
        uid, gid = _number(name or "0", "user", "passwd"), 0
    groups = list(_parse(files.group, gid_column=2))
    if group:
        entry = _find(group, groups)
        gid = entry.gid if entry else _number(group, "group", "group")
        return ContainerUser(uid=uid, gid=gid, additional_gids=(gid,))
    member_of = [entry.gid for entry in groups if known and known.name in entry.members]
    return ContainerUser(uid=uid, gid=gid, additional_gids=tuple(dict.fromkeys([gid, *member_of])))


def _find(name: str, entries: Iterator[_Entry] | list[_Entry]) -> _Entry | None:
    return next((entry for entry in entries if name in {entry.name, str(entry.uid)}), None)


def _number(text: str, kind: str, file: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise CannotCreateContainerError(
            f"unable to find {kind} {text}: no matching entries in {file} file"
        )
    if int(text) > MAX_ID:
        raise CannotCreateContainerError(f"uids and gids must be in range 0-{MAX_ID}")
    return int(text)


def _parse(text: str, gid_column: int) -> Iterator[_Entry]:
    """Read passwd (gid in column 3) or group (in column 2). Source: passwd(5), group(5)."""
    for line in text.splitlines():
        columns = line.strip().split(":")
        if line.startswith("#") or len(columns) <= gid_column:
            continue
        uid, gid = columns[2], columns[gid_column]
        if all(number.isascii() and number.isdigit() for number in (uid, gid)):
            yield _Entry(
                name=columns[0],
                uid=int(uid),
                gid=int(gid),
                members=tuple(columns[3].split(",")) if len(columns) > 3 else (),
            )
