"""The plugins of a network, one after the other, for one interface.

Source: containernetworking/cni, SPEC.md 1.1.0, section 3.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.network.cni.conflist import Conflist, PluginConfig
from fargate_agent.network.cni.plugin import PluginError, find_program, run_plugin

_log: Final = logging.getLogger(__name__)

ADD_TIMEOUT_S: Final = 60.0
DEL_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One interface of one container, as plugins are told of it."""

    container_id: str
    ifname: str
    netns: Path | None
    """None: it has gone, which only DEL takes."""
    args: str = ""
    """`CNI_ARGS`, such as `IP=10.0.0.5;IgnoreUnknown=1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Runs the plugins of `network`; the caller runs one operation on a container at a time."""

    network: Conflist
    directories: Sequence[Path]
    runtime: Mapping[str, Any]
    """What is asked for by capability: each plugin gets those that it declares."""
    inherited: Sequence[int] = ()
    """Descriptors that plugins have as long as they run."""

    async def add(self, attachment: Attachment) -> dict[str, Any]:
        """Return the result of the last plugin. If one fails, DEL has been run for all.

        If this is cancelled, DEL is the caller's to run.

        Raises:
            PluginError: a plugin failed, or has no result.
        """
        result: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(ADD_TIMEOUT_S):
                for plugin in self.network.plugins:
                    extra = _previous(result)
                    result = await self._run("ADD", plugin, attachment, extra, ADD_TIMEOUT_S)
                    if result is None:
                        raise PluginError(plugin.type, "ADD", "printed no result")
        except TimeoutError as error:
            await self._undo(attachment, result)
            detail = f"its plugins were not done within {ADD_TIMEOUT_S:g} s"
            raise PluginError(self.network.name, "ADD", detail) from error
        except PluginError:
            await self._undo(attachment, result)
            raise
        return result or {}

    async def check(self, attachment: Attachment, result: dict[str, Any]) -> None:
        """Return if the plugins find what they made, or can't be asked.

        Raises:
            PluginError: something is missing, or is other than it was made.
        """
        if self.network.is_check_disabled or not self.network.supports("0.4.0"):
            return
        for plugin in self.network.plugins:
            await self._run("CHECK", plugin, attachment, _previous(result), ADD_TIMEOUT_S)

    async def delete(self, attachment: Attachment, result: dict[str, Any] | None) -> None:
        """Run DEL from the last plugin to the first; may be repeated.

        Raises:
            PluginError: the first failure; the other plugins were run all the same.
        """
        failure: PluginError | None = None
        extra = _previous(result if self.network.supports("0.4.0") else None)
        for plugin in reversed(self.network.plugins):
            try:
                await self._run("DEL", plugin, attachment, extra, DEL_TIMEOUT_S)
            except PluginError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def status(self) -> None:
        """Return if the plugins say that they can make interfaces, or can't be asked.

        Raises:
            PluginError: one can't.
        """
        if self.network.supports("1.1.0"):
            for plugin in self.network.plugins:
                await self._run("STATUS", plugin, None, {}, DEL_TIMEOUT_S)

    async def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Have the plugins remove what they have of others than these containers and interfaces.

        Raises:
            PluginError: the first failure; the other plugins were run all the same.
        """
        if self.network.is_gc_disabled or not self.network.supports("1.1.0"):
            return
        failure: PluginError | None = None
        kept = [{"containerID": one, "ifname": ifname} for one, ifname in sorted(valid)]
        for plugin in self.network.plugins:
            try:
                extra = {"cni.dev/valid-attachments": kept, "cni.dev/attachments": kept}
                await self._run("GC", plugin, None, extra, DEL_TIMEOUT_S)
            except PluginError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _undo(self, attachment: Attachment, result: dict[str, Any] | None) -> None:
        try:
            await self.delete(attachment, result)
        except PluginError as error:
            # The failure of ADD is what the caller is told.
            _log.warning("network %s: after ADD failed: %s", self.network.name, error)

    async def _run(
        self,
        verb: str,
        plugin: PluginConfig,
        attachment: Attachment | None,
        extra: Mapping[str, Any],
        timeout_s: float,
    ) -> dict[str, Any] | None:
        program = await asyncio.to_thread(find_program, self.directories, plugin)
        if program is None:
            searched = ", ".join(str(directory) for directory in self.directories)
            raise PluginError(plugin.type, verb, f"not installed in {searched}")
        config = {
            **plugin.fields,
            **extra,
            "name": self.network.name,
            "cniVersion": self.network.version,
        }
        runtime = {
            key: self.runtime[key] for key in sorted(plugin.capabilities & set(self.runtime))
        }
        if runtime:
            config["runtimeConfig"] = runtime
        variables = {"CNI_PATH": ":".join(str(directory) for directory in self.directories)}
        if attachment is not None:
            variables["CNI_CONTAINERID"] = attachment.container_id
            variables["CNI_NETNS"] = str(attachment.netns or "")
            variables["CNI_IFNAME"] = attachment.ifname
            variables["CNI_ARGS"] = attachment.args
        return await run_plugin(
            program, verb, config, variables, timeout_s=timeout_s, inherited=self.inherited
        )


def _previous(result: dict[str, Any] | None) -> Mapping[str, Any]:
    return {} if result is None else {"prevResult": result}
