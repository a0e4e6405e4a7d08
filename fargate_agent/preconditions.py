"""What has to be so before an agent may work here, and what it then keeps from other agents."""

import fcntl
import grp
import logging
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from fargate_agent.claim import ClaimedError, claim
from fargate_agent.drivers import LoggerUser
from fargate_agent.runtime.cgroup import read_cgroups
from fargate_agent.runtime.cgroupdriver import (
    CgroupDriverError,
    CgroupDrivers,
    read_cgroup_drivers,
)
from fargate_agent.runtime.oci_runtime import OciRuntimeError, find_oci_runtime
from fargate_agent.runtime.roots import OVERLAYFS
from fargate_agent.setting_faults import find_faults, find_otlp_fault
from fargate_agent.settings import AgentKey, AgentSettings, read_agent_settings, read_key_file
from fargate_agent.settings_file import SettingsError

log = logging.getLogger(__name__)

OLDEST_CONTAINERD: Final = (1, 6)
"""Major and minor version; the agent is tested with nothing older."""

CLOSED: Final = ("tasks", "logs", "records", "spool")
"""Directories in the state directory. Below `tasks` lie volumes, on which a container may have put
set-uid programs; below the others, what tasks have said and been told."""


_OVERLAY_SEPARATORS: Final = ",:\\"
"""Source: Linux, Documentation/filesystems/overlayfs.rst, "Multiple lower layers", and
fs/overlayfs/params.c, `ovl_parse_monolithic`."""


class AgentError(Exception):
    """The agent can't do its work here, and the operator has to change something."""


class NotNowError(AgentError):
    """The agent can't do its work now; it may go away by itself, so another try makes sense."""


def read_for_start(file: Path) -> AgentSettings:
    """Read settings that an agent could begin with; blocks.

    Raises:
        SettingsError: it could not; names all that is in the way.
    """
    reading = read_agent_settings(file)
    return reading.complete(find_obstacles(reading.settings))


def check_settings(file: Path) -> AgentSettings:
    """Read settings with which all will work that they ask for; blocks.

    Raises:
        SettingsError: something won't; names all of it.
    """
    reading = read_agent_settings(file)
    settings = reading.settings
    tell_old_names(settings)
    return reading.complete((*find_obstacles(settings), *find_faults(settings)))


def tell_old_names(settings: AgentSettings) -> None:
    """Log which settings have another name or another place now."""
    if settings.cluster is not None:
        log.warning(
            'the setting "cluster" is the old name of "clusters": this agent takes the tasks of '
            'cluster %s alone; write clusters = ["%s"], or remove the setting to take those of '
            "every cluster",
            settings.cluster,
            settings.cluster,
        )
    if settings.aws_credentials_file is not None or not settings.assume_roles:
        log.warning(
            "the control plane assumes roles, and no agent does: the settings aws_credentials_file "
            "and assume_roles do nothing here; write them into the control plane's settings, to "
            'which fargate up hands them by itself, and aws = "real" into the agent\'s'
        )


def find_obstacles(settings: AgentSettings) -> Iterator[tuple[str, str]]:
    """Yield the settings without which no agent can begin here, and what is wrong with each."""
    for key, read in (
        ("state_dir", lambda: require_overlay_path(settings)),
        ("key_file", lambda: read_key(settings)),
        ("socket_group", lambda: find_group(settings.socket_group)),
        ("logger_user", lambda: find_logger_user(settings.logger_user)),
        ("cgroup_driver", lambda: find_cgroup_drivers(settings)),
        ("oci_runtime", lambda: find_runtime(settings)),
    ):
        try:
            read()
        except (AgentError, SettingsError) as error:
            for line in str(error).splitlines():
                yield key, line.removeprefix(f"{key}: ")
    yield from find_otlp_fault(settings)


@contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process alone; nobody but its owner gets into it.

    Raises:
        AgentError: another agent works there.
        NotNowError: it can't be made.
    """
    try:
        for directory in (state_dir, *(state_dir / name for name in CLOSED)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)  # whatever the umask, or an older agent, has made of it
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotNowError(f"state directory {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentError(f"another agent works in {state_dir}") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold(name: str, what: object) -> Iterator[None]:
    """Hold a name for this agent alone; `what` it stands for is what the operator reads.

    Raises:
        AgentError: another agent holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(claim(name))
        except ClaimedError as error:
            raise AgentError(f"another agent, {error}, works with {what}") from error
        yield


def require_overlay_path(settings: AgentSettings) -> None:
    """Return if directories of tasks can be named in the options of an overlay mount.

    Raises:
        AgentError: they can't.
    """
    found = [one for one in _OVERLAY_SEPARATORS if one in str(settings.state_dir)]
    if settings.snapshotter == OVERLAYFS and found:
        raise AgentError(
            f"state_dir: must not contain {found[0]}, which separates the options of an overlay "
            f"mount, and what containers write lies below it: choose another directory"
        )


def require_containerd(version: str, address: Path) -> None:
    """Return if this version of containerd will do; one that can't be read counts as new.

    Raises:
        AgentError: it is too old.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST_CONTAINERD:
        raise AgentError(
            f"containerd {version} at {address} is too old: "
            f"{'.'.join(map(str, OLDEST_CONTAINERD))} or newer is needed"
        )


def require_snapshotter(name: str, found: Mapping[str, str | None], address: Path) -> None:
    """Return if containerd has this snapshotter; `found` are all, with why one did not load.

    Raises:
        AgentError: it hasn't.
    """
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise AgentError(f"snapshotter: containerd at {address} has no {name}, it has: {known}")
    if reason := found[name]:
        raise AgentError(f"snapshotter: {name} did not load in containerd at {address}: {reason}")


def read_key(settings: AgentSettings) -> AgentKey:
    """Read the agent's key from the first place that has one; blocks.

    Raises:
        AgentError: there is none, or half of one.
        SettingsError: there is a file for it that can't be read.
    """
    if bool(settings.access_key_id) != bool(settings.secret_access_key):
        raise AgentError("access_key_id and secret_access_key go together: one of them is missing")
    if file := find_key_file(settings):
        return read_key_file(file)
    key_id = settings.access_key_id or os.environ.get("AWS_ACCESS_KEY_ID", "")
    secret = settings.secret_access_key or os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key_id or not secret:
        raise AgentError(
            "no key for the control plane: set key_file, or FARGATE_AGENT_ACCESS_KEY_ID and "
            "FARGATE_AGENT_SECRET_ACCESS_KEY"
        )
    return AgentKey(access_key_id=key_id, secret_access_key=secret)


def find_key_file(settings: AgentSettings) -> Path | None:
    """Return the file that the agent's key is read from, if it is."""
    is_given = settings.access_key_id or settings.secret_access_key
    return None if is_given else settings.key_file


def find_cgroup_drivers(settings: AgentSettings) -> CgroupDrivers:
    """Find the cgroup drivers of this host; blocks.

    Raises:
        AgentError: the one that is asked for can't work here.
    """
    try:
        return read_cgroup_drivers(settings.cgroup_driver)
    except CgroupDriverError as error:
        raise AgentError(str(error)) from None


def find_runtime(settings: AgentSettings) -> str:
    """Return what containerd's shim is to call as the OCI runtime; blocks.

    Raises:
        AgentError: it isn't there, or can't work here.
    """
    try:
        return find_oci_runtime(settings.oci_runtime, read_cgroups())
    except OciRuntimeError as error:
        raise AgentError(f"oci_runtime: {error}") from None


def find_logger_user(name: str | None) -> LoggerUser | None:
    """Return the numbers of a user by name, or of `uid:gid`; blocks.

    Raises:
        AgentError: there is no such user, or it is root.
    """
    if name is None:
        return None
    uid, _, gid = name.partition(":")
    if gid:
        return LoggerUser(uid=int(uid), gid=int(gid))
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise AgentError(f"logger_user: there is no user {name}") from None
    if 0 in (user.pw_uid, user.pw_gid):
        raise AgentError(f"logger_user: {name} has the rights of root")
    return LoggerUser(uid=user.pw_uid, gid=user.pw_gid)


def find_group(name: str | None) -> int | None:
    """Return the number of a group; blocks.

    Raises:
        AgentError: there is no such group.
    """
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise AgentError(f"socket_group: there is no group {name}") from None
