"""The settings files that `make install` puts in place say what the programs do without them."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.vpc_settings import SecurityGroupSettings, SubnetSettings
from fargate_agent.settings import AgentSettings

SYSTEMD: Final = Path(__file__).resolve().parents[2] / "systemd"
AGENT: Final = SYSTEMD / "agent.toml"
CONTROL_PLANE: Final = SYSTEMD / "control-plane.toml"
SET: Final = {"key_file": "/etc/fargate/agent-key.toml", "socket_group": "fargate"}
"""What an installed agent has other than by default."""
OLD: Final[dict[type[AgentSettings | ControlPlaneSettings], set[str]]] = {
    AgentSettings: {"cluster"}
}
"""Names that are still read and not recommended any more."""

_COMMENTED: Final = re.compile(r"^# (\w+ = .*|\[\[\w+\]\])$", re.MULTILINE)


def uncommented(file: Path) -> dict[str, Any]:
    """The file with all its examples in force."""
    return tomllib.loads(_COMMENTED.sub(r"\1", file.read_text()))


def test_delivered_files_change_only_what_they_should() -> None:
    assert tomllib.loads(AGENT.read_text()) == SET
    assert tomllib.loads(CONTROL_PLANE.read_text()) == {}


@pytest.mark.parametrize(
    ("file", "model"), [(AGENT, AgentSettings), (CONTROL_PLANE, ControlPlaneSettings)]
)
def test_every_setting_is_there_with_its_default(
    file: Path, model: type[AgentSettings | ControlPlaneSettings]
) -> None:
    values = uncommented(file)
    told = model.model_validate(values)
    defaults = model.model_construct()

    recommended = model.model_fields.keys() - OLD.get(model, set())
    assert values.keys() == recommended
    examples = {"subnets", "security_groups", "local_roles", "shim_loggers_dir"} | SET.keys()
    for name in recommended - examples:
        default = getattr(defaults, name)
        assert default is None or getattr(told, name) == default, name


def test_tables_have_every_key() -> None:
    values = uncommented(CONTROL_PLANE)

    assert set().union(*values["subnets"]) == SubnetSettings.model_fields.keys()
    assert values["security_groups"][0].keys() == SecurityGroupSettings.model_fields.keys()
