"""Each module of the package has its place among the layers."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import tomli_w

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LAYERS: Final = "one direction"
LINT: Final = "from importlinter.cli import lint_imports_command as lint; lint()"


def read_contract() -> dict[str, Any]:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    contract: dict[str, Any] = next(one for one in contracts if one["name"] == LAYERS)
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
