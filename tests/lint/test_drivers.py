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

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = CHECKOUT / "fargate_agent"
PAGE: Final = CHECKOUT / "docs/ARCHITECTURE.md"

COMPOSITION: Final = PACKAGE / "composition.py"

ENI: Final = (
    ("wire/eni_kinds.py", '    MACVLAN = "macvlan"\n', '    WIRE = "wire"\n'),
    (
        "composition.py",
        "from fargate_agent.network.veth import VethEni\n",
        "from fargate_agent.network.wire import WireEni\n",
    ),
    (
        "composition.py",
        "        EniKind.MACVLAN: MacvlanEni(),\n",
        "        EniKind.WIRE: WireEni(),\n",
    ),
)
"""What the recipe of an ENI kind adds: a file, a line of it, and the line that comes behind it."""

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
from fargate_agent.plan import plan_task
from fargate_agent.task.steps import do, network_waves, undo
from tests.fakes import fake_drivers
from tests.messages import eni_json, site, task_message

subnet = SubnetSettings(id="subnet-0123456789abcdef0", cidr="10.0.0.0/24", kind="wire")
eni = eni_json(interfaceAssociationProtocol=subnet.kind)
plan = plan_task(task_message(elasticNetworkInterfaces=[eni]), site(Path("/state")))
enis = make_enis("made-up", Findings())
drivers = dataclasses.replace(fake_drivers().all, enis=enis)

async def main():
    waves = network_waves(plan, drivers)
    await do(waves)
    await undo(waves)

asyncio.run(main())
for attribute in read_attributes(enis.values(), {}, Path("/nowhere")):
    if "wire" in attribute.name:
        print(attribute.name)
"""


def find_drivers() -> Iterator[tuple[str, Path]]:
    """Yield each class whose base is a protocol of `drivers.py`, and its file."""
    tree = ast.parse((PACKAGE / "drivers.py").read_text())
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
        if words.search(path.read_text()) and path.parent.name != "network"
    }

    assert listed == {"wire/eni_kinds.py", "machine/kernel.py"}


def test_recipe_of_an_eni_kind_names_every_file_that_has_to_change() -> None:
    recipe = PAGE.read_text().partition("**A kind of ENI**")[2].partition("**")[0]
    required = recipe.partition("Nothing else changes")[0]

    assert set(re.findall(r"`([\w/]+\.py)[:`]", required)) == {name for name, _, _ in ENI}
    assert "`network/<kind>.py`" in required


def test_a_plan_reaches_an_eni_kind_that_was_added_by_the_recipe(copy: Path) -> None:
    add_lines(copy, ENI)
    (copy / "fargate_agent/network/wire.py").write_text(NEW_ENI)

    assert run(copy, TRY_ENI) == [
        "attach wire eni-0123456789abcdef0",
        "detach wire",
        "fargate.capability.task-eni.wire",
    ]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and what tests plan tasks with, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "fargate_agent", ignore=ignored)
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "fakes.py", "messages.py"):
        shutil.copy(CHECKOUT / "tests" / name, tmp_path / "tests")
    return tmp_path


def add_lines(copy: Path, additions: tuple[tuple[str, str, str], ...]) -> None:
    for name, line, added in additions:
        path = copy / "fargate_agent" / name
        text = path.read_text()
        assert text.count(line) == 1
        path.write_text(text.replace(line, line + added))


def run(copy: Path, program: str) -> list[str]:
    """Return what a program prints that imports the copy."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
