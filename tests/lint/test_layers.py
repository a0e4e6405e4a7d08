"""Each module of the package has its place among the layers."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import tomli_w

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LAYERS: Final = "one direction"
APART: Final = "the control plane and the command line never import the agent"
LINT: Final = "from importlinter.cli import lint_imports_command as lint; lint()"


def read_contract(name: str = LAYERS) -> dict[str, Any]:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    contract: dict[str, Any] = next(one for one in contracts if one["name"] == name)
    return contract


def lint(directory: Path) -> str:
    """Hold the package in a directory to the layers, and nothing else; return what is said."""
    settings = {"root_packages": ["fargate_agent"], "contracts": [read_contract()]}
    (directory / "pyproject.toml").write_text(tomli_w.dumps({"tool": {"importlinter": settings}}))
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_a_module_in_no_layer_is_refused(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "fargate_agent", tmp_path / "fargate_agent", ignore=ignored)
    before = lint(tmp_path)
    (tmp_path / "fargate_agent/stray.py").write_text("")

    after = lint(tmp_path)

    assert f"{LAYERS} KEPT" in before
    assert f"{LAYERS} BROKEN" in after
    assert "fargate_agent.stray" in after


def test_each_module_is_the_agents_or_shared_as_the_page_says() -> None:
    package = CHECKOUT / "fargate_agent"
    modules = {path.stem for path in (*package.glob("*.py"), *package.glob("[a-z]*/"))}
    page = (CHECKOUT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    (shared,) = re.findall(r"shares only (.*?) \|", page)
    agents = {
        name.removeprefix("fargate_agent.") for name in read_contract(APART)["forbidden_modules"]
    }

    assert agents | set(re.findall(r"`(\w+)`", shared)) == modules - {
        *("__init__", "__main__", "cli", "controlplane")
    }
