"""File systems of EFS, and what stands for them here: the tables `[efs.fs-…]` of the settings."""

from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fargate_agent.setting_values import AbsolutePath, check_registry, matching

NFS_PORT: Final = 2049
"""Source: RFC 8881, section 2.9.1."""

MAX_PATH_CHARS: Final = 1024

FileSystemId = Annotated[
    str, matching(r"fs-[0-9a-f]{8,40}", "must be the id of a file system of EFS, fs-…")
]
"""Source: EFS API, `FileSystemId`."""

AccessPointId = Annotated[
    str, matching(r"fsap-[0-9a-f]{8,40}", "must be the id of an access point of EFS, fsap-…")
]
"""Source: EFS API, `AccessPointId`."""

_Id = Annotated[int, Field(ge=0, le=4294967295)]
"""Of a user or group. Source: EFS API, `PosixUser`."""


def check_export(path: str) -> str:
    """Return a path on a server, without a slash at its end.

    Raises:
        ValueError: it isn't absolute, is too long, or has a part that a path can't have.
    """
    parts = path.split("/")
    if parts[0] or ".." in parts or not path.isprintable() or len(path) > MAX_PATH_CHARS:
        raise ValueError(
            f"must be an absolute path of at most {MAX_PATH_CHARS} characters, without .."
        )
    return "/" + "/".join(part for part in parts if part not in {"", "."})


def _check_server(text: str) -> str:
    check_registry(text)
    host = urlsplit(f"//{text}").hostname or ""
    if "%" in host or (":" in host and not isinstance(ip_address(host), IPv6Address)):
        raise ValueError("must be HOST or HOST:PORT")
    return text


ExportPath = Annotated[str, AfterValidator(check_export)]


class EfsAccessPoint(BaseModel):
    """An access point: a directory of the file system, and who its files belong to."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    path: ExportPath = "/"
    """The directory that a task sees as the root."""
    uid: _Id | None = None
    """Id of the POSIX user of the access point. The NFS server has to enforce it."""
    gid: _Id | None = None
    """Id of its group."""
    owner_uid: _Id | None = None
    """Id of the user that the directory belongs to when it is made. Without it, the directory has
    to be there."""
    owner_gid: _Id | None = None
    """Id of its group."""
    permissions: Annotated[str, matching(r"0?[0-7]{3}", "must be octal, such as 0755")] | None = (
        None
    )
    """Its mode, in octal, such as `0755`."""

    @model_validator(mode="after")
    def _check_sets(self) -> Self:
        if (self.uid is None) != (self.gid is None):
            raise ValueError("uid and gid belong together")
        owner = (self.owner_uid, self.owner_gid, self.permissions)
        if None in owner and any(part is not None for part in owner):
            raise ValueError("owner_uid, owner_gid and permissions belong together")
        return self


class EfsFileSystem(BaseModel):
    """What stands for a file system of EFS: an NFS server, or a directory of this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    server: Annotated[str, AfterValidator(_check_server)] | None = None
    """Host or address of a server of NFS 4.1, with the port if it isn't 2049."""
    export: ExportPath = "/"
    """The path on the server that is the root of the file system."""
    directory: AbsolutePath | None = None
    """A directory of this machine, in the place of a server."""
    tls: bool = False
    """Whether NFS uses TLS (RFC 9289)."""
    access_points: dict[AccessPointId, EfsAccessPoint] = {}
    """A table for each access point, by its id."""

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.server is None) == (self.directory is None):
            raise ValueError("must have either server or directory")
        if self.directory is not None and self.export != "/":
            raise ValueError("export is the path on a server, and there is none")
        if self.directory == Path("/"):
            raise ValueError("directory must not be /")
        if self.directory is not None and self.tls:
            raise ValueError("tls is for a server, and there is none")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        parts = urlsplit(f"//{self.server or ''}")
        return parts.hostname or "", parts.port or NFS_PORT
