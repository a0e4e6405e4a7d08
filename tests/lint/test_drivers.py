"""Concrete drivers are named where docs/ARCHITECTURE.md says, and its recipes are right."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.log_options import DESTINATIONS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = CHECKOUT / "fargate_agent"
PAGE: Final = CHECKOUT / "docs/ARCHITECTURE.md"

COMPOSITION: Final = PACKAGE / "composition.py"

Additions = tuple[tuple[str, str, str], ...]
"""Each a file, a line of it, and what comes behind it."""

ENI: Final = (
    ("fargate_agent/wire/eni_kinds.py", '    CNI = "cni"\n', '    WIRE = "wire"\n'),
    (
        "fargate_agent/composition.py",
        "from fargate_agent.network.veth import VethEni\n",
        "from fargate_agent.network.wire import WireEni\n",
    ),
    (
        "fargate_agent/composition.py",
        "        EniKind.CNI: CniEni(prepared, firewall, state_dir / CNI_DIRECTORY, cni),\n",
        "        EniKind.WIRE: WireEni(),\n",
    ),
)
"""What the recipe of an ENI kind adds."""

NEW_ENI: Final = '''
"""ENIs as lengths of wire."""

from pathlib import Path

from fargate_agent.drivers import EniDriver
from fargate_agent.plan import EniPlan
from fargate_agent.wire.attributes import Attribute


class WireEni(EniDriver):
    """Prints what it is asked for."""

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        print("attach", eni.kind, eni.id)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        print("confirm", eni.kind)

    async def update(self, eni: EniPlan, netns: Path) -> None:
        print("update", eni.kind)

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        print("detach", eni.kind)

    def read_attributes(self, root: Path) -> tuple[Attribute, ...]:
        return (Attribute("fargate.capability.task-eni.wire"),)
'''

TRY_ENI: Final = """
import asyncio, dataclasses
from pathlib import Path

from fargate_agent.acs.capabilities import read_attributes
from fargate_agent.composition import make_enis
from fargate_agent.controlplane.vpc_settings import SubnetSettings
from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.plan import plan_task
from fargate_agent.task.steps import do, network_waves, undo
from tests.fakes import fake_drivers
from tests.messages import eni_json, site, task_message

subnet = SubnetSettings(id="subnet-0123456789abcdef0", cidr="10.0.0.0/24", kind="wire")
eni = eni_json(interfaceAssociationProtocol=subnet.kind)
plan = plan_task(task_message(elasticNetworkInterfaces=[eni]), site(Path("/state")))
firewall = HostFirewall("made-up", Path("/state/groups"), FirewallSettings())
state, netns_dir = Path("/state"), Path("/netns")
enis = make_enis(PreparedEnis("made-up", "eth1"), firewall, state, netns_dir, Findings())
drivers = dataclasses.replace(fake_drivers().all, enis=enis)

async def main():
    waves = network_waves(plan, drivers)
    await do(waves)
    await undo(waves)

asyncio.run(main())
for attribute in read_attributes(enis.values(), {}, root=Path("/nowhere")):
    if "wire" in attribute.name:
        print(attribute.name)
"""


LOGGER: Final = (
    (
        "fargate_agent/wire/log_options.py",
        "DRIVER_OPTIONS: Final[Mapping[str, DriverOptions]] = {\n",
        '    "pigeon": DriverOptions(options=_PIGEON, flags=_CONTAINER_FLAGS),\n',
    ),
    (
        "fargate_agent/wire/log_options.py",
        "_JOURNALD: Final = (_tag(), *_attributes())\n",
        '_PIGEON: Final = (LogOption("pigeon-loft", "name", required=True), *_attributes())\n',
    ),
    (
        "docs/logging.md",
        "<!-- end of every driver -->\n",
        "\n## pigeon\n\n<!-- pigeon -->\n<!-- end of pigeon -->\n",
    ),
)
"""The same of a log driver."""

NEW_LOGGER: Final = '''
"""Sends lines by pigeon."""


def make(setup):
    """Print where they go."""
    print("to", setup.flags["pigeon-loft"])
'''

TRY_LOGGER: Final = """
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit
from pathlib import Path

import logger
from fargate_agent.acs.capabilities import read_attributes
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.plan import plan_task
from fargate_agent.settings import AgentSettings
from tests.messages import container_json, site, task_message

log = {"logDriver": "pigeon", "options": {"pigeon-loft": "attic"}}
plan = plan_task(task_message(container_json(logConfiguration=log)), site(Path("/state")))
(container,) = plan.containers
drivers = make_log_drivers(AgentSettings(), None, tuple)
uri = drivers[container.log.driver].uri(plan, container)
flags = {name[2:]: value for name, value in parse_qsl(urlsplit(uri).query)}
logger.check_names(flags, flags["log-driver"])
logger.load_driver(flags["log-driver"]).make(SimpleNamespace(flags=flags))
for attribute in read_attributes((), drivers, root=Path("/nowhere")):
    if "pigeon" in attribute.name:
        print(attribute.name)
"""


def find_drivers() -> Iterator[tuple[str, Path]]:
    """Yield each class whose base is a protocol of `drivers/`, and its file."""
    tree = ast.parse("".join(path.read_text() for path in (PACKAGE / "drivers").glob("*.py")))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    protocols = {node.name for node in classes if "Driver" in names_of_bases(node)}
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE and "pb" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and protocols & names_of_bases(node):
                    yield node.name, path


def names_of_bases(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def test_drivers_are_named_by_their_package_and_where_they_are_made() -> None:
    drivers = dict(find_drivers())

    elsewhere = [
        (name, str(path.relative_to(PACKAGE)))
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"\b[A-Z]\w+\b", path.read_text())
        if name in drivers and path.parent != drivers[name].parent and path != COMPOSITION
    ]

    assert {"VethEni", "RuncRuntime", "LoggerDriver"} <= drivers.keys()
    assert elsewhere == []


def test_kinds_of_enis_stand_in_one_list() -> None:
    """Beside it, the packages of the network and the kernel's modules have words of their own."""
    words = re.compile("|".join(f"[\"']{kind}[\"']" for kind in EniKind))

    listed = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if words.search(path.read_text()) and path.parent.name not in {"network", "cniplugins"}
    }

    assert listed == {"wire/eni_kinds.py", "machine/kernel.py"}


def test_log_drivers_with_a_destination_stand_in_one_list() -> None:
    """The loggers have a copy, which is made of it; no other file has more than two of them."""
    listed = {
        str(path.relative_to(CHECKOUT))
        for root in (PACKAGE, CHECKOUT / "shim-loggers", CHECKOUT / "docs")
        for path in root.rglob("*.py")
        if sum(f'"{name}"' in path.read_text() for name in DESTINATIONS) > 2
    }

    assert listed == {"fargate_agent/wire/log_options.py", "shim-loggers/reading/known_flags.py"}


@pytest.mark.parametrize(
    ("recipe", "changed", "new"),
    [
        pytest.param("**A kind of ENI**", ENI, "network/<kind>.py", id="eni"),
        pytest.param(
            "**A log driver**", LOGGER, "shim-loggers/destinations/to_<driver>.py", id="log-driver"
        ),
    ],
)
def test_recipe_names_the_files_that_have_to_change(
    recipe: str, changed: Additions, new: str
) -> None:
    steps = PAGE.read_text().partition(recipe)[2].partition("Nothing else changes")[0]

    files = set(re.findall(r"^\d\. `([^`:]+)", steps, re.MULTILINE))

    assert files == {name.removeprefix("fargate_agent/") for name, _, _ in changed} | {new}


def test_a_plan_reaches_an_eni_kind_that_was_added_by_the_recipe(copy: Path) -> None:
    add_lines(copy, ENI)
    (copy / "fargate_agent/network/wire.py").write_text(NEW_ENI)

    assert run(copy, "-c", TRY_ENI) == [
        "attach wire eni-0123456789abcdef0",
        "detach wire",
        "fargate.capability.task-eni.wire",
    ]


def test_a_plan_reaches_a_log_driver_that_was_added_by_the_recipe(copy: Path) -> None:
    add_lines(copy, LOGGER)
    (copy / "shim-loggers/destinations/to_pigeon.py").write_text(NEW_LOGGER)

    run(copy, "-m", "docs.log_options")

    assert "| `pigeon-loft` | name | required |" in (copy / "docs/logging.md").read_text()
    assert run(copy, "-c", TRY_LOGGER) == [
        "to attic",
        "com.amazonaws.ecs.capability.logging-driver.pigeon",
    ]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and what tests plan tasks with, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("fargate_agent", "shim-loggers", "docs"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "fakes.py", "messages.py"):
        shutil.copy(CHECKOUT / "tests" / name, tmp_path / "tests")
    return tmp_path


def add_lines(copy: Path, additions: Additions) -> None:
    for name, line, added in additions:
        path = copy / name
        text = path.read_text()
        assert text.count(line) == 1
        path.write_text(text.replace(line, line + added))


def run(copy: Path, *arguments: str) -> list[str]:
    """Return what Python prints with the copy in place of the code."""
    paths = f"{copy}{os.pathsep}{copy / 'shim-loggers'}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
