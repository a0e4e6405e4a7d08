"""Whether the host passes packets on between its interfaces.

The kernel decides that by the interface a packet comes in through: a task's packets by the host's
end of its ENI, the answers by the interface that leads to their sender. So forwarding is switched
on for the interfaces that have routes. `conf/all` and `conf/default` stay as they are, unless it is
IPv6 and the kernel knows no other way. What was off before is written down, and put back when no
task needs it any more.
"""

import json
import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.files import replace_file
from fargate_agent.network.names import is_of_agent
from fargate_agent.network.sysctl import ROOT

log = logging.getLogger(__name__)

FORCE_FORWARDING: Final = "force_forwarding"
"""Forwarding of IPv6 on one interface, since Linux 6.17. Source: Linux,
Documentation/networking/ip-sysctl.rst."""
ACCEPT_ALSO_WHEN_FORWARDING: Final = "2"
"""Source: the same, `accept_ra`."""

FORWARDING_FILE: Final = "forwarding.json"
"""Below the state directory."""

_LINKS: Final = Path("/sys/class/net")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ROUTES_V4: Final = Path("/proc/thread-self/net/route")
_ROUTES_V6: Final = Path("/proc/thread-self/net/ipv6_route")
_NOT_ROUTED: Final = ("fe80", "ff")
"""How the destinations begin that each interface has, and that stay on its own wire."""


class Forwarding:
    """What one agent has changed of the host's forwarding.

    All methods block, for microseconds.
    """

    def __init__(self, file: Path, prefix: str) -> None:
        """`file` says what is changed; names of the agent's own interfaces begin with `prefix`."""
        self._file = file
        self._prefix = prefix
        self._turn = threading.Lock()

    def find(self, versions: Iterable[int]) -> dict[int, set[str]]:
        """Return the interfaces that pass packets on only because of this agent.

        By version of IP: now, or after `ensure` for these versions. Those that the agent before has
        used are always among them. Where the whole host forwards since, it does so for somebody
        else too.

        Raises:
            OSError: the kernel refused.
        """
        changed = self._recall()
        used = {4 if name.startswith("ipv4/") else 6 for name in changed}
        return {
            version: {
                name for name in self._find(version, changed) if not name.startswith(self._prefix)
            }
            for version in used.union(versions)
        }

    def ensure(self, version: int) -> None:
        """Have packets of IP version 4 or 6 passed on between all interfaces that have routes now.

        Somebody may switch forwarding off for the whole host, which clears this, and interfaces
        come later. So it is called again from time to time.

        Raises:
            OSError: the kernel refused, or what is changed can't be written down.
        """
        with self._turn:
            conf = ROOT / f"ipv{version}" / "conf"
            if _read(conf / "all" / "forwarding") != "0":
                return
            if version == 4:
                self._switch_on(conf, "forwarding", _routed_v4())
            elif (conf / "all" / FORCE_FORWARDING).exists():
                self._switch_on(conf, FORCE_FORWARDING, _routed_v6())
            else:
                self._forward_everywhere_v6(conf)

    def ensure_end(self, name: str) -> None:
        """Have packets passed on that come in through the host's end of an ENI.

        Raises:
            OSError: the kernel refused.
        """
        for setting in ("ipv4/conf/{}/forwarding", f"ipv6/conf/{{}}/{FORCE_FORWARDING}"):
            path = ROOT / setting.format(name)
            with suppress(FileNotFoundError):  # it has gone, or the kernel can't do it
                if _read(path) == "0":
                    path.write_text("1", encoding="ascii")

    def restore(self) -> None:
        """Put back what was changed, as far as nobody has changed it since.

        Where the whole host forwards since, each interface does so for somebody else too.

        Raises:
            OSError: the kernel refused.
        """
        with self._turn:
            for name, (before, made) in self._recall().items():
                path = ROOT / name
                with suppress(FileNotFoundError):
                    if _read(path) == made and not _is_wanted_everywhere(path):
                        path.write_text(before, encoding="ascii")
                        log.info("put %s back to %s", path, before)
            self._file.unlink(missing_ok=True)

    def _find(self, version: int, changed: Mapping[str, object]) -> set[str]:
        conf, everywhere = ROOT / f"ipv{version}" / "conf", f"ipv{version}/conf/all/forwarding"
        is_off = _read(conf / "all" / "forwarding") == "0"
        setting = "forwarding" if version == 4 else FORCE_FORWARDING
        if everywhere in changed or (is_off and not (conf / "all" / setting).exists()):
            return {name for name in _routed_v6() if self._is_uplink(name)}
        if not is_off:
            return set()
        found = _routed_v4() if version == 4 else _routed_v6()
        return {
            name
            for name in found
            if f"ipv{version}/conf/{name}/{setting}" in changed or _is_off(conf / name / setting)
        }

    def _switch_on(self, conf: Path, setting: str, names: set[str]) -> None:
        for path in (conf / name / setting for name in sorted(names)):
            if not path.parent.name.startswith(self._prefix):
                self._change(path, "0", "1")

    def _forward_everywhere_v6(self, conf: Path) -> None:
        """For kernels that can't forward IPv6 on single interfaces.

        A host that forwards stops listening to routers, and would lose what it has from them. So
        its uplinks that listen are told to go on: what is neither a bridge nor a port of one, and
        leads to no task.
        """
        for path in (conf / name / "accept_ra" for _, name in socket.if_nameindex()):
            if self._is_uplink(path.parent.name):
                self._change(path, "1", ACCEPT_ALSO_WHEN_FORWARDING)
        self._change(conf / "all" / "forwarding", "0", "1")

    def _is_uplink(self, name: str) -> bool:
        link = _LINKS / name
        is_port = (link / "bridge").exists() or (link / "master").exists()
        return not is_port and not name.startswith(self._prefix) and not is_of_agent(name)

    def _change(self, path: Path, before: str, after: str) -> None:
        """Change a setting if it is as given. It is written down first."""
        with suppress(FileNotFoundError):  # the interface has gone meanwhile
            if _read(path) != before:
                return
            changed = self._recall()
            name = str(path.relative_to(ROOT))
            if changed.get(name) != (before, after):
                self._note({**changed, name: (before, after)})
            path.write_text(after, encoding="ascii")
            log.info("set %s to %s, so that tasks reach other networks", path, after)

    def _recall(self) -> dict[str, tuple[str, str]]:
        """What is changed, by its path below /proc/sys/net: from what to what.

        A boot of the machine puts everything back.
        """
        try:
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            if noted["boot"] != _read(_BOOT_ID):
                return {}
            return {name: (before, after) for name, (before, after) in noted["changed"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s can't be read: %s", self._file, error)
            return {}

    def _note(self, changed: dict[str, tuple[str, str]]) -> None:
        noted = {"boot": _read(_BOOT_ID), "changed": changed}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._file, json.dumps(noted), durable=False)


def _routed_v4() -> set[str]:
    """The interfaces with routes in the main table. Source: proc(5), /proc/net/route."""
    _, *lines = _ROUTES_V4.read_text(encoding="ascii").splitlines()
    return {name for line in lines if not is_of_agent(name := line.split()[0])} - {"*"}


def _routed_v6() -> set[str]:
    """The same of IPv6. Source: Linux, net/ipv6/route.c, `rt6_info_route`."""
    routes = [line.split() for line in _ROUTES_V6.read_text(encoding="ascii").splitlines()]
    return {
        name
        for destination, *_, name in routes
        if name != "lo" and not is_of_agent(name) and not destination.startswith(_NOT_ROUTED)
    }


def _is_wanted_everywhere(path: Path) -> bool:
    """Whether the setting of one interface has been switched on for all by somebody else.

    Who does so, as Docker does, writes the setting of each interface. Source: Linux,
    Documentation/networking/ip-sysctl.rst, `conf/all/forwarding` and `force_forwarding`.
    """
    everywhere = path.parent.parent / "all" / path.name
    return (
        path.name in ("forwarding", FORCE_FORWARDING)
        and path != everywhere
        and _read(everywhere) != "0"
    )


def _is_off(path: Path) -> bool:
    try:
        return _read(path) == "0"
    except FileNotFoundError:  # the interface has gone
        return False


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
