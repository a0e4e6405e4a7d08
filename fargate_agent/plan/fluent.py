"""The configuration of a FireLens router, in the language of Fluent Bit or of fluentd; pure.

Sections, their order and their names are those that ECS generates for a task of its own network.
Options come sorted by name. ECS puts the filters and outputs of containers in no order; here it is
that of the task definition.

Source: amazon-ecs-agent, agent/taskresource/firelens/firelensconfig_unix.go;
awslabs/go-config-generator-for-fluentd-and-fluentbit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.errors import ResourceInitializationError

SOCKET_PATH: Final = "/var/run/fluent.sock"
"""Where the router listens, as it sees it."""
HOST: Final = "127.0.0.1"
PORT: Final = "24224"

_HEALTH_PORT: Final = "8877"
_HEALTH_TAG: Final = "firelens-healthcheck"
_FIELD: Final = "log"
"""Of a record, that `include-pattern` and `exclude-pattern` look at."""
_INCLUDE: Final = "include-pattern"
_EXCLUDE: Final = "exclude-pattern"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterInput:
    """What the configuration of a router says."""

    senders: Mapping[str, Mapping[str, str]]
    """By the name of a container, the options that say where its output is to go."""
    fields: Mapping[str, str]
    """What is added to every record."""
    included_file: str | None
    """A further configuration, inside the router; stands before the outputs."""
    memory_mib: int
    """How much output Fluent Bit may hold that came through the socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterKind:
    """What differs between the kinds of routers."""

    render: Callable[[RouterInput], str]
    output_key: str
    """The option that names an output."""
    variable: str
    """How a variable of the environment stands in a configuration; `{}` is its name."""
    config_path: str
    """Where the router expects its configuration."""
    environment: Mapping[str, str]


def _render_fluent_bit(router: RouterInput) -> str:
    sections = [
        _section(
            "INPUT",
            "Name forward",
            f"Mem_Buf_Limit {router.memory_mib}MB",
            f"unix_path {SOCKET_PATH}",
        ),
        _section("INPUT", "Name forward", f"Listen {HOST}", f"Port {PORT}"),
        _section(
            "INPUT", "Name tcp", f"Tag {_HEALTH_TAG}", f"Listen {HOST}", f"Port {_HEALTH_PORT}"
        ),
    ]
    for option, key in ((_INCLUDE, "Regex "), (_EXCLUDE, "Exclude")):
        for name, pattern in _find_patterns(router, option):
            match = f"Match {name}-firelens*"
            sections.append(_section("FILTER", "Name   grep", match, f"{key} {_FIELD} {pattern}"))
    if router.fields:
        records = [f"Record {name} {value}" for name, value in sorted(router.fields.items())]
        sections.append(_section("FILTER", "Name record_modifier", "Match *", *records))
    if router.included_file is not None:
        sections.append(f"@INCLUDE {router.included_file}")
    sections.append(_section("OUTPUT", "Name null", f"Match {_HEALTH_TAG}"))
    for name, output, options in _find_outputs(router, "fluentbit"):
        sections.append(_section("OUTPUT", f"Name {output}", f"Match {name}-firelens*", *options))
    return _join(sections)


def _render_fluentd(router: RouterInput) -> str:
    sections = [
        _block("source", "@type unix", f"path {SOCKET_PATH}"),
        _block("source", "@type forward", f"bind {HOST}", f"port {PORT}"),
    ]
    for option, block in ((_INCLUDE, "regexp"), (_EXCLUDE, "exclude")):
        for name, pattern in _find_patterns(router, option):
            lines = (f"    key {_FIELD}", f"    pattern {pattern}")
            grep = ("@type  grep", f"<{block}>", *lines, f"</{block}>")
            sections.append(_block(f"filter {name}-firelens**", *grep))
    if router.fields:
        records = [f"    {name} {value}" for name, value in sorted(router.fields.items())]
        what = ("@type record_transformer", "<record>", *records, "</record>")
        sections.append(_block("filter **", *what))
    if router.included_file is not None:
        sections.append(f"@include {router.included_file}")
    for name, output, options in _find_outputs(router, "fluentd"):
        sections.append(_block(f"match {name}-firelens**", f"@type {output}", *options))
    return _join(sections)


def _find_patterns(router: RouterInput, option: str) -> Iterator[tuple[str, str]]:
    for name, options in router.senders.items():
        if option in options:
            yield name, options[option]


def _find_outputs(router: RouterInput, kind: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield container, output and its options; a container may have its output in another file.

    Raises:
        ResourceInitializationError: there are options, and nothing says of which output.
    """
    key = KINDS[kind].output_key
    for name, options in router.senders.items():
        own = {k: v for k, v in options.items() if k not in (key, _INCLUDE, _EXCLUDE)}
        if key in options:
            yield name, options[key], [f"{k} {v}" for k, v in sorted(own.items())]
        elif own:
            raise ResourceInitializationError(
                "unable to generate firelens config file: unable to generate firelens config: "
                f"unable to apply log options of container {name} to firelens config: "
                f"missing output key {key} which is required for firelens configuration "
                f"of type {kind}",
                container=name,
            )


def _section(kind: str, *lines: str) -> str:
    return "\n    ".join((f"[{kind}]", *lines))


def _block(tag: str, *lines: str) -> str:
    return "\n    ".join((f"<{tag}>", *lines)) + f"\n</{tag.partition(' ')[0]}>"


def _join(sections: list[str]) -> str:
    return "".join(f"\n{section}\n" for section in sections)


KINDS: Final[Mapping[str, RouterKind]] = {
    "fluentbit": RouterKind(
        render=_render_fluent_bit,
        output_key="Name",
        variable="${{{}}}",
        config_path="/fluent-bit/etc/fluent-bit.conf",
        environment={},
    ),
    "fluentd": RouterKind(
        render=_render_fluentd,
        output_key="@type",
        variable="\"#{{ENV['{}']}}\"",
        config_path="/fluentd/etc/fluent.conf",
        environment={"FLUENT_UID": "0"},
    ),
}
"""By `type` of a firelensConfiguration. Source: amazon-ecs-agent, agent/api/task/task.go."""
