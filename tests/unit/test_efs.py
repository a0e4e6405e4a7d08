"""EFS volumes: what stands for a file system, and where its directory comes from."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fargate_agent.controlplane.agents.needs import find_needs
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import EfsPlan, EfsRoot, Replacement, Site, TaskPlan, plan_task
from fargate_agent.settings import read_agent_settings
from fargate_agent.settings_efs import EfsFileSystem
from fargate_agent.volumes import efs as module
from fargate_agent.volumes import efs_roots
from fargate_agent.volumes.efs import EfsVolumes
from fargate_agent.volumes.efs_roots import open_root
from fargate_agent.volumes.mounts import MountedOn
from fargate_agent.volumes.nfs import (
    render_addresses,
    render_security,
    render_source,
)
from fargate_agent.volumes.unfinished import UNFINISHED_MODE
from fargate_agent.wire.volumes import EfsMessage
from tests.messages import container_json, site, task_message

FS = "fs-0123456789abcdef0"
POINT = "fsap-0123456789abcdef0"
SERVER = EfsFileSystem.model_validate(
    {
        "server": "nas.example:2050",
        "export": "/srv/efs/",
        "access_points": {
            POINT: {"path": "/web", "owner_uid": 7, "owner_gid": 8, "permissions": "0750"}
        },
    }
)


async def _nobody(task: TaskPlan, host: str) -> list[str]:
    raise OSError(f"{task.id}: lookup {host}: no such host")


def plan(here: Site, **asked: object) -> TaskPlan:
    volume = {"name": "v", "efsVolumeConfiguration": {"fileSystemId": FS, **asked}}
    container = container_json(mountPoints=[{"sourceVolume": "v", "containerPath": "/v"}])
    return plan_task(task_message(container, volumes=[volume]), here)


def efs(here: Site, **asked: object) -> EfsPlan:
    found = plan(here, **asked).volumes[0].efs
    assert found is not None
    return found


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def test_settings_say_which_server_has_the_files(here: Site) -> None:
    mapped = replace(here, efs={FS: SERVER})
    assert efs(mapped, rootDirectory="data/") == EfsPlan(
        file_system_id=FS, path="/data", server="nas.example", port=2050, export="/srv/efs"
    )


def test_access_point_of_the_settings_is_the_root(here: Site) -> None:
    found = efs(
        replace(here, efs={FS: SERVER}),
        transitEncryption="ENABLED",
        authorizationConfig={"accessPointId": POINT},
    )
    assert (found.path, found.root) == ("/web", EfsRoot(uid=7, gid=8, mode=0o750))


def test_access_point_that_no_setting_has_is_a_fault(here: Site) -> None:
    mapped = replace(here, efs={FS: EfsFileSystem(server="nas.example")})
    assert efs(mapped, authorizationConfig={"accessPointId": POINT}).fault == (
        f"access point {POINT} is not in the agent's setting efs.{FS}.access_points"
    )


def test_without_aws_a_directory_of_the_agent_stands_for_a_file_system(
    here: Site, tmp_path: Path
) -> None:
    found = efs(replace(here, is_local=True), rootDirectory="/data")
    assert (found.directory, found.path, found.is_made) == (tmp_path / "efs" / FS, "/data", True)


def test_without_aws_each_access_point_is_a_directory_that_everybody_can_write(
    here: Site,
) -> None:
    found = efs(replace(here, is_local=True), authorizationConfig={"accessPointId": POINT})
    assert (found.path, found.root) == (f"/{POINT}", EfsRoot(uid=0, gid=0, mode=0o777))


def test_efs_itself_is_mounted_by_the_name_that_aws_gives_it(here: Site) -> None:
    found = efs(replace(here, region="eu-west-1"))
    assert (found.server, found.port) == (f"{FS}.efs.eu-west-1.amazonaws.com", 2049)
    assert (found.export, found.path, found.fault) == ("/", "/", "")


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"transitEncryption": "ENABLED"}, "TLS"),
        (
            {"transitEncryption": "ENABLED", "authorizationConfig": {"iam": "ENABLED"}},
            "TLS and IAM authorization",
        ),
    ],
)
def test_what_nfs_alone_has_not_is_refused_on_efs_itself(
    asked: dict[str, Any], what: str, here: Site
) -> None:
    assert f"with {what} on EFS itself" in efs(here, **asked).fault


def test_replacements_say_what_is_done_without(here: Site) -> None:
    asked = {
        "transitEncryption": "ENABLED",
        "authorizationConfig": {"iam": "ENABLED", "accessPointId": POINT},
    }
    lost = "without TLS, IAM authorization and the user of the access point"
    told = {
        "a directory of this machine": replace(here, is_local=True),
        "the NFS server nas.example:2050 of the agent's setting efs": replace(
            here, efs={FS: SERVER}
        ),
        "the directory of the agent's setting efs": replace(
            here,
            efs={
                FS: EfsFileSystem.model_validate(
                    {"directory": "/srv", "access_points": {POINT: {}}}
                )
            },
        ),
    }
    for by, where in told.items():
        assert plan(where, **asked).replacements == (
            Replacement(kind="efs", what=FS, by=f"{by}, {lost}"),
        )
    assert plan(here).replacements == ()


def test_server_with_tls_has_it_whatever_the_definition_says(here: Site) -> None:
    over_tls = replace(here, efs={FS: SERVER.model_copy(update={"tls": True})})
    by = "the NFS server nas.example:2050 of the agent's setting efs"
    for asked in ({"transitEncryption": "ENABLED"}, {}):
        assert efs(over_tls, **asked).tls
        replaced = plan(over_tls, **asked).replacements
        assert all("TLS" not in one.by for one in replaced)
    assert plan(over_tls, transitEncryption="ENABLED").replacements == (
        Replacement(kind="efs", what=FS, by=by),
    )
    assert render_security(tls=True) == {"xprtsec": "tls"}
    assert render_security(tls=False) == {}


async def test_server_that_is_there_has_time_before_what_waits_for_it_is_aborted(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process wrote is still on its way."""
    task = plan(replace(here, efs={FS: SERVER}))
    volume = task.volumes[0]
    mount = MountedOn(mountpoint=volume.source, filesystem="nfs4", device="0:7")
    aborted: list[Path] = []

    async def find(_: Path) -> list[MountedOn]:
        return [mount]

    async def abort(path: Path, *, by_force: bool) -> None:
        assert by_force
        aborted.append(path)

    monkeypatch.setattr(module, "_find_mounts", find)
    monkeypatch.setattr(module, "unmount_nfs", abort)
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def resolve(_: TaskPlan, __: str) -> list[str]:
            return ["127.0.0.1"]

        asked = EfsPlan(file_system_id=FS, path="/", port=server.getsockname()[1])
        volume = replace(volume, efs=asked)
        driver = EfsVolumes(Path("/"), resolve, lambda _, *kind: socket.socket(*kind))
        for expected in (0, 1, 2):
            await driver.interrupt(task, volume)
            assert len(aborted) == expected
    driver = EfsVolumes(Path("/"), resolve, lambda _, *kind: socket.socket(*kind))
    await driver.interrupt(task, volume)  # nobody listens any more
    assert aborted == [volume.source] * 3


def test_port_of_a_tunnel_is_taken_and_changes_nothing(here: Site) -> None:
    asked = {"transitEncryption": "ENABLED"}
    mapped = replace(here, efs={FS: SERVER})
    assert efs(mapped, **asked, transitEncryptionPort=3049) == efs(mapped, **asked)


def test_volume_is_mounted_outside_of_the_ephemeral_volume(here: Site) -> None:
    task = plan(replace(here, is_local=True))
    assert task.volumes[0].source == task.directory / "efs" / "v"
    assert task.containers[0].mounts[0].source == task.volumes[0].source


@pytest.mark.parametrize(
    "asked",
    [
        {"fileSystemId": "fs-xyz"},
        {"fileSystemId": FS, "rootDirectory": "/../etc"},
        {"fileSystemId": FS, "rootDirectory": "/a\nb"},
        {"fileSystemId": FS, "transitEncryptionPort": 65536},
        {"fileSystemId": FS, "authorizationConfig": {"accessPointId": "fsap-?"}},
    ],
)
def test_what_can_be_no_file_system_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EfsMessage.model_validate(asked)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('server = "nas"\ndirectory = "/srv"', f"efs.{FS}: must have either server or directory"),
        ("", f"efs.{FS}: must have either server or directory"),
        ('server = "http://nas"', f"efs.{FS}.server: must be HOST or HOST:PORT"),
        ('directory = "srv"', f"efs.{FS}.directory: must be an absolute path"),
        ('directory = "/"', f"efs.{FS}: directory must not be /"),
        ('server = "nas"\nexport = "/a/../b"', f"efs.{FS}.export: must be an absolute path"),
        ('directory = "/srv"\nexport = "/a"', f"efs.{FS}: export is the path on a server"),
        ('directory = "/srv"\ntls = true', f"efs.{FS}: tls is for a server"),
        ('server = "nas"\nserfer = "x"', f"efs.{FS}.serfer: unknown setting"),
        (
            f'server = "nas"\n[efs.{FS}.access_points.{POINT}]\nuid = 1',
            f"efs.{FS}.access_points.{POINT}: uid and gid belong together",
        ),
        (
            f'server = "nas"\n[efs.{FS}.access_points.{POINT}]\npermissions = "0755"',
            "owner_uid, owner_gid and permissions belong together",
        ),
        (f'server = "nas"\n[efs.{FS}.access_points.fsap-x]', "must be the id of an access point"),
    ],
)
def test_wrong_table_is_refused_with_its_place(lines: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f"[efs.{FS}]\n{lines}\n")
    faults = read_agent_settings(file).faults
    assert len(faults) == 1
    assert faults[0].startswith(f"{file}:")
    assert complaint in faults[0]


def test_table_of_an_access_point_is_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[efs.{FS}]\nserver = "[fd00::1]:2050"\n[efs.{FS}.access_points.{POINT}]\npath = "/web/"\n'
        'uid = 7\ngid = 8\nowner_uid = 7\nowner_gid = 8\npermissions = "750"\n'
    )
    reading = read_agent_settings(file)
    assert reading.faults == ()
    found = reading.settings.efs[FS]
    assert found.address == ("fd00::1", 2050)
    assert found.access_points[POINT].path == "/web"


def test_root_is_made_with_its_owner_and_mode_and_left_as_it_is_from_then_on(
    tmp_path: Path,
) -> None:
    root = EfsRoot(uid=os.getuid(), gid=os.getgid(), mode=0o2771 & 0o777)
    os.close(open_root(tmp_path, "/a/b", root))
    assert oct((tmp_path / "a").stat().st_mode) == "0o40755"
    assert oct((tmp_path / "a/b").stat().st_mode) == "0o40771"
    (tmp_path / "a/b").chmod(0o700)

    os.close(open_root(tmp_path, "/a/b", root))

    assert oct((tmp_path / "a/b").stat().st_mode) == "0o40700"
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_what_a_killed_agent_left_unfinished_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efs_roots, "MAKER_TIMEOUT_S", 0)
    (tmp_path / "a").mkdir(UNFINISHED_MODE)
    os.close(open_root(tmp_path, "/a", EfsRoot(uid=os.getuid(), gid=os.getgid(), mode=0o750)))
    assert oct((tmp_path / "a").stat().st_mode) == "0o40750"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_root_that_is_not_there_and_is_not_to_be_made_is_missed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_root(tmp_path, "/a", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/link", "/link/etc", "/in/link"])
def test_no_link_in_a_file_system_leads_out_of_it(path: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for link in (tmp_path / "link", tmp_path / "in/link"):
        link.symlink_to("/")
    with pytest.raises(OSError, match="Not a directory|Too many levels"):
        open_root(tmp_path, path, EfsRoot(uid=0, gid=0, mode=0o755))


def test_addresses_are_written_as_the_kernel_reads_them() -> None:
    assert render_source("fd00::1", "/a") == "[fd00::1]:/a"
    assert render_source("10.0.0.1", "/") == "10.0.0.1:/"
    assert render_addresses("fd00::1", 2049, "10.0.0.9") == {
        "proto": "tcp6",
        "port": "2049",
        "addr": "fd00::1",
        "clientaddr": "10.0.0.9",
    }


def test_task_with_efs_needs_an_agent_that_has_it() -> None:
    volume: dict[str, Any] = {"name": "v", "efsVolumeConfiguration": {"fileSystemId": FS}}
    names = [need.attributes for need in find_needs({"volumes": [volume]}, [])]
    assert (("ecs.capability.efs", ""),) in names
    assert (("ecs.capability.efsAuth", ""),) not in names
    volume["efsVolumeConfiguration"]["authorizationConfig"] = {"iam": "ENABLED"}
    names = [need.attributes for need in find_needs({"volumes": [volume]}, [])]
    assert (("ecs.capability.efsAuth", ""),) in names
    driver = EfsVolumes(Path("/"), _nobody, socket_in_netns)
    told = {(one.name, one.value) for one in driver.read_attributes(Path("/"))}
    assert told == {("ecs.capability.efs", ""), ("ecs.capability.efsAuth", "")}
