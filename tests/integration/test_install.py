"""`make install` as packagers use it: all files below one directory, and nothing else touched."""

import importlib.util
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.apart import with_network_of_host
from tests.fixtures.machine import wait_for

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 240
PROGRAMS: Final = ("fargate", "fargate-agent", "fargate-control-plane")

pytestmark = pytest.mark.timeout(300)  # pip resolves and installs twice


ENVIRONMENT: Final = {
    key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")
}
"""What a shell's make gets, also where these tests run below make."""


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        with_network_of_host("make", *arguments),
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def make_well(*arguments: str) -> str:
    done = make(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a machine to be, with the programs in it."""
    root = tmp_path_factory.mktemp("root")
    make_well("install", f"DESTDIR={root}")
    yield root
    make_well("purge", f"DESTDIR={root}")
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


def run(root: Path, *arguments: str) -> str:
    """Run the environment's Python where it is now."""
    done = subprocess.run(
        [root / "opt/fargate/venv/bin/python", "-I", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_links_lead_to_the_programs(installed: Path) -> None:
    for name in PROGRAMS:
        link = installed / "usr/local/bin" / name
        assert link.readlink() == Path("/opt/fargate/venv/bin") / name
        assert (installed / f"opt/fargate/venv/bin/{name}").stat().st_mode & 0o111 == 0o111


def test_programs_name_the_interpreter_they_will_have(installed: Path) -> None:
    tree = installed / "opt/fargate"

    for program in (tree / "venv/bin" / name for name in PROGRAMS):
        assert program.read_text().splitlines()[0] == "#!/opt/fargate/venv/bin/python"


@pytest.mark.root
def test_cni_plugins_run_from_where_runtimes_look_for_them(installed: Path) -> None:
    plugins = sorted(one.name for one in (CHECKOUT / "cni").iterdir() if one.is_symlink())
    script = """set -eu
        mount --rbind "$1/opt" /opt
        for plugin in /opt/cni/bin/*; do echo '{}' | CNI_COMMAND=VERSION $plugin; done"""

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", installed],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert sorted(one.name for one in (installed / "opt/cni/bin").iterdir()) == plugins
    assert done.stdout.count('"supportedVersions"') == len(plugins)
    program = (installed / "opt/fargate/cni/plugin").read_text()
    assert program.startswith("#!/opt/fargate/venv/bin/python -IS\n")


def test_no_file_knows_where_it_was_made(installed: Path) -> None:
    traces = (os.fsencode(installed), os.fsencode(CHECKOUT), b"/opt/fargate.new")

    found = [
        path
        for path in installed.rglob("*")
        if path.is_file() and not path.is_symlink()
        if any(trace in path.read_bytes() for trace in traces)
    ]

    assert found == []


def test_every_module_of_ours_is_compiled(installed: Path) -> None:
    tree = installed / "opt/fargate"
    ours = next(tree.glob("venv/lib/*/site-packages/fargate_agent"))

    for source in (*ours.rglob("*.py"), *(tree / "shim-loggers").rglob("*.py")):
        assert list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")), source


def test_byte_code_that_was_made_with_a_wheel_is_used(installed: Path) -> None:
    (packages,) = installed.glob("opt/fargate/venv/lib/*/site-packages")
    (archive,) = (CHECKOUT / "build/wheels").glob("fargate_agent-*.whl.pyc.zip")

    with zipfile.ZipFile(archive) as brought:
        names = [name for name in brought.namelist() if name.endswith(".pyc")]
        assert len(names) > 100
        for name in names:
            byte_code = packages / name
            assert byte_code.read_bytes() == brought.read(name), "compiled again"
            source = Path(importlib.util.source_from_cache(str(byte_code)))
            of_source = int.from_bytes(byte_code.read_bytes()[8:12], "little")  # Source: PEP 552
            assert of_source == source.stat().st_mtime, source


def test_installed_agent_finds_the_loggers_beside_it(installed: Path) -> None:
    found = run(
        installed,
        "-c",
        "from fargate_agent.settings import AgentSettings; print(AgentSettings().shim_loggers_dir)",
    )

    assert found == str(installed / "opt/fargate/shim-loggers")
    assert os.access(Path(found) / "json-file", os.X_OK)


def test_profile_of_apparmor_is_where_the_next_boot_and_fargate_up_find_it(
    installed: Path,
) -> None:
    (packages,) = installed.glob("opt/fargate/venv/lib/*/site-packages")
    ours = (CHECKOUT / "fargate_agent/apparmor/fargate-default").read_text()

    assert (installed / "etc/apparmor.d/fargate-default").read_text() == ours
    assert (packages / "fargate_agent/apparmor/fargate-default").read_text() == ours


def test_upgrade_keeps_what_was_edited_and_renews_the_rest(installed: Path) -> None:
    settings = installed / "etc/fargate"
    (settings / "agent.toml").write_text('cluster = "mine"\n')
    for old in (settings, installed / "opt/fargate/settings"):  # as an older version had it
        (old / "control-plane.toml").write_text("# older\n")
    (packages,) = (installed / "opt/fargate/venv/lib").glob("python3.*/site-packages/fargate_agent")
    gone = [installed / "opt/fargate/gone-in-the-new-version", packages / "gone.py"]
    for file in gone:
        file.touch()

    make_well("install", f"DESTDIR={installed}")

    assert (settings / "agent.toml").read_text() == 'cluster = "mine"\n'
    delivered = (CHECKOUT / "systemd/control-plane.toml").read_text()
    assert (settings / "control-plane.toml").read_text() == delivered
    assert not any(file.exists() for file in gone)
    assert sorted(path.name for path in (installed / "opt").iterdir()) == ["cni", "fargate"]


def test_interrupted_upgrade_leaves_the_old_version_whole(installed: Path) -> None:
    mark = installed / "opt/fargate/the-old-one"
    mark.touch()
    half = installed / "opt/fargate.new/venv/bin/python"
    upgrade = subprocess.Popen(
        ["make", "install", f"DESTDIR={installed}"],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(half.is_symlink, "the new tree", DEADLINE_S)
    finally:
        os.killpg(upgrade.pid, signal.SIGKILL)
        upgrade.wait()

    assert mark.exists()
    assert run(installed, "-m", "fargate_agent", "--version")

    make_well("install", f"DESTDIR={installed}")

    assert not mark.exists()
    assert not (installed / "opt/fargate.new").exists()


def test_another_prefix_moves_links_and_units(installed: Path) -> None:
    make_well("install", f"DESTDIR={installed}", "PREFIX=/usr")

    units = installed / "usr/lib/systemd/system"
    for name in ("fargate-agent", "fargate-control-plane"):
        assert f"ExecStart=/usr/bin/{name}" in (units / f"{name}.service").read_text()
        assert "/usr/local/" not in (units / f"{name}.service").read_text()
    assert (installed / "usr/bin/fargate").is_symlink()
    assert not list((installed / "usr/local").rglob("*fargate*"))


def test_uninstall_leaves_only_edited_settings_and_may_be_repeated(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_well("install", f"DESTDIR={root}")
    (root / "etc/fargate/agent.toml").write_text('cluster = "mine"\n')

    for _ in range(2):
        said = make_well("uninstall", f"DESTDIR={root}")

        assert f"{root}/etc/fargate/agent.toml stays" in said
        left = [path for path in root.rglob("*") if not path.is_dir()]
        assert left == [root / "etc/fargate/agent.toml"]


@pytest.mark.parametrize("place", ["usr/local/bin/fargate", "opt/cni/bin/ecs-bridge"])
def test_file_of_somebody_else_is_not_replaced(place: str, tmp_path: Path) -> None:
    theirs = tmp_path / place
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")

    done = make("install", f"DESTDIR={tmp_path}")

    assert done.returncode != 0
    assert f"install: {theirs} is there and is not ours" in done.stderr
    assert theirs.read_text() == "theirs"
    assert not (tmp_path / "opt/fargate").exists()


def test_plugin_that_leads_elsewhere_is_not_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "usr/lib/cni/ecs-bridge"
    theirs.parent.mkdir(parents=True)
    theirs.symlink_to("/opt/theirs/ecs-bridge")

    done = make("install", f"DESTDIR={tmp_path}", "CNI_BIN_DIR=/usr/lib/cni")

    assert f"install: {theirs} is there and leads elsewhere" in done.stderr
    assert theirs.readlink() == Path("/opt/theirs/ecs-bridge")


def test_without_wheels_nothing_is_touched(installed: Path, tmp_path: Path) -> None:
    before = sorted((installed / "opt/fargate").iterdir())

    done = subprocess.run(
        [CHECKOUT / "systemd/install", "install"],
        env={**os.environ, "DESTDIR": str(installed), "WHEELS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )

    assert done.returncode != 0
    assert done.stderr == f"install: {tmp_path} holds no wheels: make wheels\n"
    assert sorted((installed / "opt/fargate").iterdir()) == before


def purge(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKOUT / "systemd/install", "purge"],
        env={**os.environ, "DESTDIR": str(root), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


@pytest.mark.root
@pytest.mark.parametrize("is_link", [False, True], ids=["directory", "link"])
def test_purge_removes_nothing_while_a_directory_of_the_machine_is_mounted_in_the_state(
    tmp_path: Path, is_link: bool
) -> None:
    code, state = tmp_path / "srv/code", tmp_path / "root/var/lib/fargate-agent"
    code.mkdir(parents=True)
    (code / "main").touch()
    state.parent.mkdir(parents=True)
    real = tmp_path / "data" if is_link else state
    if is_link:
        state.symlink_to(real)
    mountpoint = real / "tasks/0123456789abcdef/host/v"
    mountpoint.mkdir(parents=True)
    (real / "lock").touch()
    settings = tmp_path / "root/etc/fargate/agent.toml"
    settings.parent.mkdir(parents=True)
    settings.touch()

    subprocess.run(["mount", "--bind", code, mountpoint], check=True)
    try:
        done = purge(tmp_path / "root")
    finally:
        subprocess.run(["umount", mountpoint], check=True)

    assert done.returncode != 0
    assert f"still mounted:\n  {mountpoint}\n" in done.stderr
    assert (code / "main").exists()
    assert (real / "lock").exists()
    assert settings.exists()

    done = purge(tmp_path / "root")

    assert done.returncode == 0, done.stderr
    assert not os.path.lexists(state)
    assert (code / "main").exists()


@pytest.mark.root
def test_state_is_removed_through_no_mount_that_is_made_meanwhile(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "mounted").mkdir(parents=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main").touch()
    subprocess.run(["mount", "--bind", tmp_path / "code", state / "mounted"], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-IB", CHECKOUT / "systemd/remove-state", "remove", state],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        subprocess.run(["umount", state / "mounted"], check=True)

    assert done.returncode != 0
    assert f"a mount point is not removed: '{state}/mounted'" in done.stderr
    assert (tmp_path / "code/main").exists()


@pytest.mark.root
@pytest.mark.parametrize("verb", ["install", "uninstall", "purge"])
def test_who_is_not_root_is_told_so(verb: str) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "bash", "-s", verb],
        input=(CHECKOUT / "systemd/install").read_text(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode != 0
    assert done.stderr == f"{verb}: this needs root: sudo make {verb}\n"


def test_wheels_are_not_made_again_for_nothing(installed: Path) -> None:
    stamp = (CHECKOUT / "build/wheels/stamp").stat()

    assert make_well("wheels") == ""

    assert (CHECKOUT / "build/wheels/stamp").stat().st_mtime_ns == stamp.st_mtime_ns


PROGRAMS_OF_A_BARE_MACHINE: Final = {
    "apt-get": 'echo "apt-get $*" >>"$DIARY"',
    "dpkg-query": "exit 1",
    "id": "echo 0",
    "python": 'echo "python $*" >>"$DIARY"; exit 1',
}
"""Nothing is installed, and Python fails, so that `make install` gets no further than to it."""


def test_on_a_bare_machine_packages_come_before_what_is_made_with_them(tmp_path: Path) -> None:
    for name, script in PROGRAMS_OF_A_BARE_MACHINE.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    diary = tmp_path / "diary"

    done = subprocess.run(
        ["make", "-j4", "install", f"PYTHON={tmp_path}/python", f"WHEELS={tmp_path}/wheels"],
        cwd=CHECKOUT,
        env={**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DIARY": str(diary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )

    assert done.returncode != 0
    update, install, python, *_ = diary.read_text().splitlines()
    assert update.startswith("apt-get update")
    assert install.startswith("apt-get install")
    assert {"python3", "python3-venv", "ca-certificates"} <= set(install.split())
    assert python.startswith("python ")
