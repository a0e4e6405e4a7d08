"""The options of every log driver: the one table of them.

The control plane validates with it, the agent makes flags of options with it, and `make docs` makes
the tables of docs/logging.md and the flags that loggers know from it.

Source: ECS API, LogConfiguration; moby, daemon/logger/*, `ValidateLogOpt`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """What the value of an option reaches on the agent's machine."""

    PLAIN = "nothing"
    FILE = "a file, which the logger reads"
    ADDRESS = "a unix socket, if the address is one"
    RE2 = "google-re2, which the logger loads"


@dataclass(frozen=True, slots=True)
class LogOption:
    """One option of a log driver."""

    name: str
    """In a task definition."""
    values: str
    """As docs/logging.md says it; so are `default` and `meaning`."""
    default: str = "none"
    meaning: str = ""
    flag: str | None = ""
    """Of the logger: empty if it has the name of the option, None if there is none."""
    required: bool = False
    secret: bool = False
    """The logger fetches the value itself; no command line has it."""
    kind: Kind = Kind.PLAIN
    on_fargate: bool = True
    """Whether Fargate takes the option where it takes the driver."""
    pattern: re.Pattern[str] | None = None
    """Of all values, if RegisterTaskDefinition checks them."""

    @property
    def flag_name(self) -> str | None:
        """The flag of the logger, without dashes; None if there is none."""
        return self.name if self.flag == "" else self.flag

    def takes(self, value: str) -> bool:
        """Whether the pattern, if there is one, matches a value."""
        return self.pattern is None or self.pattern.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverOptions:
    """The options of one driver, and what its logger is told besides."""

    options: tuple[LogOption, ...]
    """Without those of every driver, `COMMON_OPTIONS`."""
    flags: tuple[str, ...] = ()
    """Flags of its logger that no option stands for."""
    in_netns: bool = True
    """Whether the logger works in the network namespace of the task."""
    on_fargate: bool = False
    """Whether Fargate has the driver. RegisterTaskDefinition checks required options of these."""
    socket: str = ""
    """A socket of the machine, below `/`, without which nothing can be sent; empty if none is."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all options that the driver takes."""
        return frozenset(option.name for option in (*COMMON_OPTIONS, *self.options))

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the options without which there is no logger."""
        return tuple(option.name for option in self.options if option.required)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the options whose values are secrets."""
        return frozenset(option.name for option in self.options if option.secret)


MODE: Final = LogOption(
    "mode",
    "`blocking`, `non-blocking`",
    "setting `log_driver_mode`, which is `non-blocking` as in ECS",
    "whether the container waits, or lines are lost, when the destination doesn't keep up",
    pattern=re.compile("blocking|non-blocking"),
)
MAX_BUFFER_SIZE: Final = LogOption(
    "max-buffer-size",
    "size, binary units",
    "`10m`; `1m` in blocking mode",
    "how much is held in memory at most, what the sender has in hands included. In non-blocking "
    "mode what comes beyond that is lost",
    pattern=re.compile(
        # So many digits as no machine has bytes. Source: docker/go-units, `RAMInBytes`.
        r"[0-9]{1,12}(\.[0-9]{1,2})? ?([kmgtp]i?)?b?",
        re.IGNORECASE | re.ASCII,
    ),
)
COMMON_OPTIONS: Final = (MODE, MAX_BUFFER_SIZE)
"""Of every driver. Source: moby, daemon/logger/factory.go."""
COMMON_NAMES: Final = frozenset(option.name for option in COMMON_OPTIONS)

MAX_ROUTER_BUFFER: Final = 536_870_912
"""Largest `log-driver-buffer-limit`; the pattern alone takes more digits."""
ROUTER_BUFFER: Final = LogOption(
    "log-driver-buffer-limit",
    f"0 to {MAX_ROUTER_BUFFER}",
    "1048576 lines, 10m",
    "how much the logger holds for the router: lines, and above 10 MiB bytes too",
    flag="fluentd-buffer-limit",
    pattern=re.compile(r"[0-9]{1,9}", re.ASCII),
)

LOGGER_FLAGS: Final = (
    *("container-id", "container-name", "log-driver"),
    *("log-path", "copy-max-size", "copy-max-file", "fault-path"),
    *("uid", "gid", "netns", "dns-servers", "dns-search"),
)
"""Flags of the program `logger` that no option stands for, whatever the driver."""

_BOOLEAN: Final = "boolean"
_FILE: Final = "file below the setting `log_host_paths`"
_SYSTEM_CAS: Final = "those of the system"
_CONTAINER_FLAGS: Final = (
    *("container-image-name", "container-labels"),
    *("container-env", "container-env-names", "container-env-endpoint"),
)
"""What tags and attributes are made of."""


def _tag(flag: str = "", default: str = "`{{.ID}}`") -> LogOption:
    return LogOption("tag", "template", default, "what lines are marked with", flag=flag)


def _attributes(prefix: str = "") -> tuple[LogOption, ...]:
    """Which labels and variables of the container go along with its output."""
    values, meaning = "names, with commas", "those of the container that go with each line"
    return (
        LogOption("labels", values, meaning=meaning, flag=f"{prefix}labels"),
        LogOption("env", values, meaning=meaning, flag=f"{prefix}env"),
        *(
            LogOption(
                name,
                "regular expression of Python",
                meaning="the same, for all whose names match",
                flag=f"{prefix}{name}",
            )
            for name in ("labels-regex", "env-regex")
        ),
    )


_AWSLOGS: Final = (
    LogOption("awslogs-region", "region", required=True),
    LogOption("awslogs-group", "name", required=True),
    LogOption(
        "awslogs-stream-prefix",
        "text",
        meaning="the stream is `<prefix>/<container>/<task id>`; without it the id of the "
        "container",
        flag=None,
    ),
    LogOption("awslogs-create-group", _BOOLEAN, "`false`", "create the group if it isn't there"),
    LogOption("awslogs-create-stream", _BOOLEAN, "`true`", "create the stream", on_fargate=False),
    LogOption(
        "awslogs-multiline-pattern",
        "regular expression",
        meaning="an event begins at each line in which it is found. Syntax and meaning are "
        "those of RE2, as with Docker; what RE2 doesn't take, e.g. `(?!…)` or `\\1`, ends "
        "the task before it starts",
        kind=Kind.RE2,
    ),
    LogOption(
        "awslogs-datetime-format",
        "strftime",
        meaning="the same, by the time that a line has; wins over the pattern",
        kind=Kind.RE2,
    ),
    LogOption(
        "awslogs-format",
        "`json/emf`",
        meaning="said in a header of each request; not together with one of the two above",
        on_fargate=False,
    ),
    LogOption(
        "awslogs-endpoint",
        "URL",
        "setting `awslogs_endpoint`, then `aws_endpoint_url`, then AWS",
        "CloudWatch Logs",
        on_fargate=False,
    ),
)

_SPLUNK: Final = (
    LogOption(
        "splunk-url", "`http(s)://host[:port]`", meaning="the HTTP Event Collector", required=True
    ),
    LogOption(
        "splunk-token",
        "text; better a secret of `secretOptions`, which wins",
        meaning="never on a command line; see above",
        required=True,
        secret=True,
    ),
    LogOption("splunk-source", "text", meaning="of each event"),
    LogOption("splunk-sourcetype", "text", meaning="of each event"),
    LogOption("splunk-index", "text", meaning="of each event"),
    LogOption("splunk-format", "`inline`, `json`, `raw`", "`inline`"),
    LogOption(
        "splunk-verify-connection",
        _BOOLEAN,
        "`true`",
        "ask the collector before the container starts",
    ),
    LogOption("splunk-gzip", _BOOLEAN, "`false`"),
    LogOption("splunk-gzip-level", "-1 to 9", "-1"),
    LogOption("splunk-capath", _FILE, _SYSTEM_CAS, "whom to trust", kind=Kind.FILE),
    LogOption("splunk-caname", "name", "host of the URL", "the name in the certificate"),
    LogOption("splunk-insecureskipverify", _BOOLEAN, "`false`", "trust anyone"),
    LogOption(
        "splunk-index-acknowledgment",
        _BOOLEAN,
        "`false`",
        "ask until events are indexed, and send again those that aren't",
    ),
    _tag("splunk-tag"),
    *_attributes(),
)

_AWSFIRELENS: Final = (
    *(
        LogOption(
            name,
            "an output plugin",
            meaning="where this container's lines go, `Name` with fluentbit and `@type` "
            "with fluentd; required if there are other options of the output",
            flag=None,
        )
        for name in ("Name", "@type")
    ),
    *(
        LogOption(name, "regular expression", meaning="a filter on the field `log`", flag=None)
        for name in ("include-pattern", "exclude-pattern")
    ),
    ROUTER_BUFFER,
)

_FLUENTD: Final = (
    LogOption(
        "fluentd-address",
        "`[tcp://]host[:port]`, `tls://…`, `unix:///path`",
        "`127.0.0.1:24224`",
        kind=Kind.ADDRESS,
    ),
    LogOption("fluentd-async", _BOOLEAN, "`false`", "the container starts although nobody answers"),
    LogOption("fluentd-async-reconnect-interval", "100ms to 10s", meaning="connect anew so often"),
    LogOption(
        "fluentd-sub-second-precision",
        _BOOLEAN,
        "`true`",
        "EventTime with nanoseconds, else whole seconds",
    ),
    LogOption(
        "fluentd-buffer-limit",
        "number of lines",
        "1048576",
        "so many lines wait at most, besides what `max-buffer-size` says",
    ),
    LogOption(
        "fluentd-write-timeout", "duration", "`5s`", "for a write, and for an acknowledgement"
    ),
    LogOption(
        "fluentd-request-ack",
        _BOOLEAN,
        "`true` in blocking mode",
        "send again what isn't acknowledged",
    ),
    LogOption("fluentd-capath", _FILE, _SYSTEM_CAS, "whom to trust", kind=Kind.FILE),
    _tag("fluentd-tag"),
)

_SYSLOG: Final = (
    LogOption(
        "syslog-address",
        "`udp://`, `tcp://`, `tcp+tls://`, `unix://`, `unixgram://`",
        "`unixgram:///dev/log`",
        kind=Kind.ADDRESS,
    ),
    LogOption("syslog-facility", "name, or 0 to 23", "`daemon`"),
    LogOption(
        "syslog-format", "`rfc3164`, `rfc5424`, `rfc5424micro`", "that of the machine's syslog"
    ),
    LogOption("syslog-tls-ca-cert", _FILE, _SYSTEM_CAS, "whom to trust", kind=Kind.FILE),
    LogOption("syslog-tls-cert", _FILE, meaning="certificate of the logger", kind=Kind.FILE),
    LogOption("syslog-tls-key", _FILE, meaning="its key", kind=Kind.FILE),
    LogOption("syslog-tls-skip-verify", _BOOLEAN, "`false`", "trust anyone"),
    _tag(),
    *_attributes(),
)

_GELF: Final = (
    LogOption("gelf-address", "`udp://host:port`, `tcp://host:port`", required=True),
    LogOption(
        "gelf-compression-type",
        "`gzip`, `zlib`, `none`",
        "`gzip`",
        "udp alone. Each line is compressed by itself, which takes 50 µs: `none` spares it",
    ),
    LogOption("gelf-compression-level", "-1 to 9", "1", "udp alone"),
    *(
        LogOption(
            name, "number", "", "taken, and without effect: nothing is lost after so many attempts"
        )
        for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
    ),
    _tag(),
    *_attributes(),
)

_JOURNALD: Final = (_tag(), *_attributes())

_JSON_FILE: Final = (
    LogOption(
        "max-size",
        "size, decimal units, more than 0",
        "`log_max_size`",
        "when a file is full; it gets no larger, unless one record is larger alone",
    ),
    LogOption(
        "max-file",
        "1 to 9999",
        "`log_max_file`",
        "how many files are kept, the one that is written to included",
    ),
    LogOption(
        "compress",
        _BOOLEAN,
        "`false`",
        "full files become `.1.gz`, `.2.gz`; wants `max-file` of 2 or more. A container "
        "that fills a file before the last one is compressed waits for that",
    ),
    _tag("json-file-tag", "none"),
    *_attributes("json-file-"),
)

DRIVER_OPTIONS: Final[Mapping[str, DriverOptions]] = {
    "awslogs": DriverOptions(
        options=_AWSLOGS,
        on_fargate=True,
        flags=(
            *("awslogs-stream", "awslogs-credentials-endpoint", "awslogs-flush-pending-multiline"),
            *("awslogs-packages", "awslogs-python"),
        ),
    ),
    "splunk": DriverOptions(
        options=_SPLUNK,
        on_fargate=True,
        # `tag` changes nothing: the flag of the option is `splunk-tag`.
        flags=("splunk-token-endpoint", "splunk-ack-timeout", "tag", *_CONTAINER_FLAGS),
    ),
    "awsfirelens": DriverOptions(options=_AWSFIRELENS, on_fargate=True),
    "fluentd": DriverOptions(options=_FLUENTD, flags=("container-image-name",)),
    "syslog": DriverOptions(options=_SYSLOG, flags=_CONTAINER_FLAGS),
    "gelf": DriverOptions(options=_GELF, flags=_CONTAINER_FLAGS),
    "journald": DriverOptions(
        options=_JOURNALD,
        flags=("journald-socket", *_CONTAINER_FLAGS),
        in_netns=False,
        socket="run/systemd/journal/socket",
    ),
    "json-file": DriverOptions(
        options=_JSON_FILE,
        flags=(
            *("container-id", "container-name", "log-driver", "log-path", "fault-path"),
            *("container-image-name", "container-labels", "container-env", "container-env-names"),
        ),
        in_netns=False,
    ),
}
"""By the name of the driver; those that Fargate has stand first, in the order of its own texts."""

DESTINATIONS: Final = tuple(
    name for name in DRIVER_OPTIONS if name not in {"awsfirelens", "json-file"}
)
"""Drivers whose loggers are the program `logger`. Those of `awsfirelens` are loggers of fluentd."""
