"""What log lines are marked with: a tag, and labels and environment variables of the container.

JSON and the metadata endpoint are loaded when something is chosen: 0.4 ms of a start.
Source: moby, daemon/logger/loggerutils/log_tag.go and daemon/logger/loginfo.go.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from network.connection import Connector
    from sending.destination import Setup

DEFAULT_TAG = "{{.ID}}"
SHORT_ID_CHARS = 12
DAEMON_NAME = "fargate-agent"
SPECIFICATION = "../{}/config.json"
"""What runC is to make of a container, by its id. The shim and its loggers run in the directory of
a container, beside those of others. Source: containerd, runtime/v2/bundle.go."""


def shorten_id(identity: str) -> str:
    """Return the beginning that stands for an id."""
    return identity[:SHORT_ID_CHARS]


def read_name(flags: dict[str, str]) -> str:
    """Return the container's name."""
    return flags["container-name"].removeprefix("/")


def render_tag(flags: dict[str, str], name: str = "tag") -> str:
    """Fill in the template that a flag holds.

    Raises:
        ValueError: the template asks for something else than names and ids.
    """
    template = flags.get(name, DEFAULT_TAG)
    values = {
        ".ID": shorten_id(flags["container-id"]),
        ".FullID": flags["container-id"],
        ".Name": read_name(flags),
        ".ImageName": flags.get("container-image-name", ""),
        ".DaemonName": DAEMON_NAME,
    }
    tag, *parts = template.split("{{")
    for part in parts:
        action, closed, rest = part.partition("}}")
        value = values.get(action.strip())
        if value is None or not closed:
            known = ", ".join("{{" + field + "}}" for field in values)
            raise ValueError(f"unsupported log tag '{template}': only {known} can be used")
        tag += value + rest
    return tag


def load_env(flags: dict[str, str]) -> None:
    """Put the variables that `container-env-names` tells into the flag `container-env`.

    Their values stand in no argument, as these are for everyone to read. The specification of the
    container has them, and is for root alone, so `make` calls this.

    Raises:
        OSError: there is no specification.
        ValueError: it can't be read. Source: OCI runtime specification, config.md, "Process".
    """
    if "container-env-names" not in flags:
        return
    from local.json_text import parse_json, quote

    # pathlib costs 2 MB.
    with open(SPECIFICATION.format(flags["container-id"]), "rb") as file:  # noqa: PTH123
        specification: Any = parse_json(file.read())
    known = dict([text.partition("=")[::2] for text in specification["process"]["env"]])
    names: Any = parse_json(flags["container-env-names"].encode())
    pairs = [quote(name) + b":" + quote(known[name]) for name in names if name in known]
    flags["container-env"] = (b"{%b}" % b",".join(pairs)).decode()


def read_attributes(setup: "Setup", connector: "Connector") -> dict[str, str]:
    """Return the labels and the environment variables that `labels`, `env` and so on choose.

    Raises:
        ValueError: what the container has is told in an unreadable way, or a regular expression is
            none.
        OSError: the environment can't be fetched.
    """
    flags = setup.flags
    chosen = {}
    if "labels" in flags or "labels-regex" in flags:
        labels = _parse_map("container-labels", flags.get("container-labels", "{}").encode())
        chosen = _choose(labels, flags.get("labels", ""), flags.get("labels-regex", ""))
    if "env" in flags or "env-regex" in flags:
        env = _read_env(setup, connector)
        chosen |= _choose(env, flags.get("env", ""), flags.get("env-regex", ""))
    return dict(sorted(chosen.items()))


def _read_env(setup: "Setup", connector: "Connector") -> dict[str, str]:
    place = setup.flags.get("container-env-endpoint", "")
    if not place:
        return _parse_map("container-env", setup.flags.get("container-env", "{}").encode())
    from local.json_text import parse_json
    from network.endpoints import Endpoint

    answer = parse_json(Endpoint(place, connector, setup.deadline).fetch())
    env = answer.get("env") if isinstance(answer, dict) else None
    return _check_map("container-env-endpoint", env)


def _parse_map(name: str, data: bytes) -> dict[str, str]:
    from local.json_text import parse_json

    try:
        return _check_map(name, parse_json(data))
    except ValueError:
        raise ValueError(f"{name}: expected a JSON object of strings") from None


def _check_map(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{name}: expected a JSON object of strings")
    return value


def _choose(found: dict[str, str], names: str, pattern: str) -> dict[str, str]:
    chosen = {name: found[name] for name in names.split(",") if name in found}
    if pattern:
        import re

        try:
            matches = re.compile(pattern).search
        except (re.error, OverflowError, RecursionError) as error:  # the others: it is too much
            raise ValueError(f"invalid regular expression '{pattern}': {error}") from None
        chosen |= {name: value for name, value in found.items() if matches(name)}
    return chosen
