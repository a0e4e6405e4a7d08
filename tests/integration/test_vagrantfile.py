"""The Vagrantfile, as far as it can be checked without a machine in the machine."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.fixtures.programs import require_program

CHECKOUT: Final = Path(__file__).resolve().parents[2]
VAGRANTFILE: Final = CHECKOUT / "Vagrantfile"

READ_SCRIPTS: Final = """
require "json"
class Recorder
  SCRIPTS = {}
  def method_missing(name, *arguments, **options)
    SCRIPTS[arguments[0]] = options[:inline] if name == :provision
    yield self if block_given?
    self
  end
end
module Vagrant
  def self.configure(_) = yield(Recorder.new)
end
load ARGV[0]
puts JSON.generate(Recorder::SCRIPTS)
"""
"""Ruby that prints what the machine is told to do, by name."""

COMMANDS: Final = {
    "systemctl": '[ "$*" != "reload fargate-agent" ] || touch "$SANDBOX/reloading"',
    "fargate": '[ ! -e "$SANDBOX/reloading" ] || exit 1  # no agent answers',
    **dict.fromkeys(("apt-get", "make", "usermod", "vagrant/examples/busybox-image"), "true"),
}
"""What stands in for the commands of a machine."""


def validate(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    require_program("vagrant")
    (directory / "Vagrantfile").write_text(text)
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=directory,
        env={**os.environ, "VAGRANT_HOME": str(directory), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_vagrantfile_is_valid(tmp_path: Path) -> None:
    done = validate(tmp_path, VAGRANTFILE.read_text())

    assert done.returncode == 0, done.stderr


def test_broken_vagrantfile_would_be_noticed(tmp_path: Path) -> None:
    done = validate(
        tmp_path, VAGRANTFILE.read_text().replace("config.vm.hostname", "config.vm.hst")
    )

    assert done.returncode != 0
    assert "hst" in done.stderr


def provision(sandbox: Path, name: str) -> str:
    """Do what the machine is told to do, in a directory in its place; return the commands."""
    require_program("ruby")
    scripts = json.loads(
        subprocess.check_output(["ruby", "-e", READ_SCRIPTS, VAGRANTFILE], text=True, timeout=60)
    )
    for command, script in COMMANDS.items():
        (sandbox / command).parent.mkdir(parents=True, exist_ok=True)
        (sandbox / command).write_text(
            f'#!/bin/sh\necho "${{0##*/}} $*" >>"$SANDBOX/diary"\n{script}\n'
        )
        (sandbox / command).chmod(0o755)
    (sandbox / "etc").mkdir()
    for file in ("agent.toml", "control-plane.toml"):
        (sandbox / "etc" / file).write_text((CHECKOUT / "systemd" / file).read_text())
    done = subprocess.run(
        ["bash"],
        input=scripts[name]
        .replace("/etc/fargate", f"{sandbox}/etc")
        .replace("cd /vagrant", f"cd {sandbox}/vagrant"),
        env={"PATH": f"{sandbox}:/usr/bin:/bin", "SANDBOX": str(sandbox)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr + (sandbox / "diary").read_text()
    return (sandbox / "diary").read_text()


def test_machine_asks_nothing_of_an_agent_that_begins_anew(tmp_path: Path) -> None:
    done = provision(tmp_path, "install")

    assert "fargate images load" in done
    assert "systemctl reload fargate-agent" in done
    assert 'image_pull_behavior = "prefer-cached"' in (tmp_path / "etc/agent.toml").read_text()


def test_machine_gets_the_packages_of_every_test(tmp_path: Path) -> None:
    needed = re.search(r"^test: (.*) ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert needed

    assert set(needed[1].split()) <= set(provision(tmp_path, "develop").split())
