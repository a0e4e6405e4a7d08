"""Writes the tables of settings.md from the settings classes: `python -m docs.settings_tables`.

A setting's docstring is its text. What stands outside of the markers is written by hand.
"""

import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fargate_agent.controlplane.role_settings import LocalRoleSettings
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.vpc_settings import (
    RuleSettings,
    SecurityGroupSettings,
    SubnetSettings,
)
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_efs import EfsAccessPoint, EfsFileSystem
from fargate_agent.settings_images import ImageSignatureSettings
from fargate_agent.settings_network import FlowLogSettings
from fargate_agent.settings_registries import RegistrySettings

PAGE: Final = Path(__file__).with_name("settings.md")

TABLES: Final[dict[str, type[BaseModel]]] = {
    "fargate-agent": AgentSettings,
    "image_signatures": ImageSignatureSettings,
    "registries": RegistrySettings,
    "flow_logs": FlowLogSettings,
    "efs": EfsFileSystem,
    "access_points": EfsAccessPoint,
    "fargate-control-plane": ControlPlaneSettings,
    "subnets": SubnetSettings,
    "security_groups": SecurityGroupSettings,
    "rules": RuleSettings,
    "local_roles": LocalRoleSettings,
}
"""By the name in the markers, `<!-- NAME -->` and `<!-- end of NAME -->`."""

SHOWN: Final = {
    "shim_loggers_dir": "see right",
    "egress": "see right",
}
"""Defaults that depend on the place, or are too long for a table."""

_SOURCE: Final = re.compile(r"\s*Source:.*", re.DOTALL)


def main() -> None:
    """Write the page."""
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render_page(text: str) -> str:
    """Return the page with the tables as they are now.

    Raises:
        ValueError: a table has no place on it.
    """
    for name, model in TABLES.items():
        text = put_table(text, name, _render_table(model))
    return text


def put_table(text: str, name: str, table: str) -> str:
    """Return a page with this table between the markers of its name.

    Raises:
        ValueError: there are none.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise ValueError(f"no lines {begin.strip()} and {end.strip()} in the page of {name}")
    return f"{before}{begin}{table}{end}{after}"


def _render_table(model: type[BaseModel]) -> str:
    rows = [_render_row(name, field) for name, field in model.model_fields.items()]
    return "".join(["| key | default | meaning |\n|---|---|---|\n", *rows])


def _render_row(name: str, field: FieldInfo) -> str:
    """One setting.

    Raises:
        ValueError: it has no docstring.
    """
    text = " ".join(_SOURCE.sub("", field.description or "").split())
    if not text:
        raise ValueError(f"setting {name} has no docstring")
    return f"| `{name}` | {_render_default(name, field)} | {text.replace('|', chr(92) + '|')} |\n"


def _render_default(name: str, field: FieldInfo) -> str:
    default: Any = "required" if field.is_required() else field.default
    match default:
        case _ if name in SHOWN or field.is_required():
            return SHOWN.get(name, "required")
        case None | () | "" | {} if not default:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return ", ".join(f"`{value}`" for value in default)
        case _:
            return f"`{default}`"


if __name__ == "__main__":
    main()
