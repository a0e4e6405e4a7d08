"""Volumes of EFS for which an NFS server stands, which goes away and comes back."""

import time
from typing import Any, Final

from tests.vm.lab import Lab, Progress, definition, require
from tests.vm.tasks import require_nothing_left

_SERVER: Final = "10.77.0.2"
"""The machine itself: tasks reach it by their ENIs alone, at a port of `host_ports`."""
_FS: Final = "fs-0123456789abcdef0"
_POINT: Final = "fsap-0123456789abcdef0"

_START_SERVER: Final = """
mkdir -p /srv/nas
echo '/srv/nas *(rw,fsid=0,insecure,no_root_squash,no_subtree_check)' >/etc/exports
printf '[nfsd]\\ngrace-time=10\\nlease-time=10\\nvers3=n\\n' >/etc/nfs.conf
systemctl unmask nfs-server 2>&1
systemctl start nfs-server
"""
_KNOW_THE_SERVER: Final = f"""
sed -i '1i host_ports = ["2049"]' /etc/fargate/agent.toml
cat >>/etc/fargate/agent.toml <<'end'

[efs.{_FS}]
server = "{_SERVER}"

[efs.{_FS}.access_points.{_POINT}]
path = "/web/data"
owner_uid = 1234
owner_gid = 5678
permissions = "0750"
end
systemctl reload fargate-agent
"""
_START_TLS: Final = f"""
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={_SERVER} \\
    -addext subjectAltName=IP:{_SERVER} -keyout /etc/nas.key -out /etc/nas.crt 2>&1
for conf in /etc/tlshd.conf $(ls -d /etc/tlshd/config); do
    printf '[authenticate.client]\\nx509.truststore=/etc/nas.crt\\n' >$conf
    printf '[authenticate.server]\\nx509.certificate=/etc/nas.crt\\n' >>$conf
    printf 'x509.private_key=/etc/nas.key\\n' >>$conf
done
echo '/srv/nas *(rw,fsid=0,insecure,no_root_squash,no_subtree_check,xprtsec=tls)' >/etc/exports
systemctl unmask tlshd 2>&1
systemctl start tlshd
systemctl restart nfs-server
"""
"""The export is for TLS alone."""
_USE_TLS: Final = f"""
sed -i '/^server = "{_SERVER}"/a tls = true' /etc/fargate/agent.toml
systemctl reload fargate-agent
"""
_WRITE_SCRIPT: Final = """
trap 'exit 0' TERM
n=0 file=/efs/$(hostname -i)
while :; do n=$((n+1)); echo $n >$file.next && mv $file.next $file; sleep 0.2; done
"""

_STOP_LIMIT_S: Final = 60.0
"""A stop has 2 s for the container, and 30 s for each undo; nothing here is fast."""


def check_efs(lab: Lab, progress: Progress) -> None:
    """A real server, through the ENI of each task."""
    with progress.check("an NFS server, and a setting that maps a file system to it"):
        lab.sh(_START_SERVER)
        lab.sh(_KNOW_THE_SERVER)
    with progress.check("an access point: made with its owner, mounted by NFS 4.1"):
        task = _task("point", "stat -c '%u:%g %a' /efs; grep ' /efs ' /proc/mounts; echo x >/efs/x")
        asked = task["volumes"][0]["efsVolumeConfiguration"]
        asked |= {
            "transitEncryption": "ENABLED",
            "authorizationConfig": {"accessPointId": _POINT, "iam": "ENABLED"},
        }
        code, shown = lab.follow_task(task)
        require(code == 0, f"exit {code}: {shown}")
        require("1234:5678 750" in shown, f"not made as the settings say: {shown}")
        for option in ("nfs4", "vers=4.1", "hard", "noresvport", "timeo=600", "nodev"):
            require(option in shown, f"not mounted with {option}: {shown}")
        require(lab.sh("cat /srv/nas/web/data/x") == "x", "the server has no file")
    with progress.check("a root directory that isn't there"):
        task = _task("nowhere", "true")
        task["volumes"][0]["efsVolumeConfiguration"]["rootDirectory"] = "/nowhere"
        code, shown = lab.follow_task(task)
        require("failed, reason given by server: No such file or directory" in shown, shown)
    one, other = _start_writers(lab, progress)
    _check_outage(lab, progress, one)
    _check_stops(lab, progress, one, other)
    _check_tls(lab, progress)
    with progress.check("nothing of the mounts is left"):
        require("nfs4" not in lab.sh("cat /proc/self/mountinfo"), "a mount is left")
        lab.sh("systemctl stop nfs-server; systemctl mask nfs-server; rm -r /srv/nas /etc/exports")


def _start_writers(lab: Lab, progress: Progress) -> tuple[str, str]:
    with progress.check("two tasks on one file system are two clients, each by its ENI") as note:
        ids = [lab.run_task(_task(name, _WRITE_SCRIPT)) for name in ("one", "other")]
        for task_id in ids:
            status = lab.wait_for_status(task_id, "RUNNING", "STOPPED")
            require(status == "RUNNING", lab.describe(task_id).get("stoppedReason", status))
            lab.wait_for(f"cat {_file(lab, task_id)}")
        clients = lab.sh("cat /proc/fs/nfsd/clients/*/info")
        for task_id in ids:
            require(task_id in clients, f"{task_id} is no client of its own: {clients}")
            require(f'"{lab.address(task_id)}:' in clients, f"not by its ENI: {clients}")
        note(f"{clients.count('name:')} clients")
    return ids[0], ids[1]


def _check_outage(lab: Lab, progress: Progress, task_id: str) -> None:
    with progress.check(
        "a server that goes away and comes back: the task waits and goes on"
    ) as note:
        file = _file(lab, task_id)
        lab.sh("systemctl stop nfs-server")
        before = lab.sh(f"cat {file}")
        lab.sh("sleep 15")
        require(lab.sh(f"cat {file}") == before, "written without a server")
        require(lab.describe(task_id)["lastStatus"] == "RUNNING", "the task is not running")
        lab.sh("systemctl start nfs-server")
        begun = time.monotonic()
        lab.wait_for(f"test $(cat {file}) -gt $(({before}+5))")
        note(f"goes on {time.monotonic() - begun:.0f} s after the server's start")
        require(lab.describe(task_id)["lastStatus"] == "RUNNING", "the task is not running")


def _check_stops(lab: Lab, progress: Progress, one: str, other: str) -> None:
    with progress.check("a task is stopped while its server is there") as note:
        note(f"{_stop(lab, one):.1f} s")
    with progress.check("a task is stopped while its server is gone") as note:
        file = _file(lab, other)
        lab.sh("systemctl stop nfs-server")
        before = lab.sh(f"cat {file}; sleep 3")
        require(lab.sh(f"cat {file}") == before, "written without a server")
        note(f"{_stop(lab, other):.1f} s")
        lab.sh("systemctl start nfs-server")


def _check_tls(lab: Lab, progress: Progress) -> None:
    if lab.suite == "bookworm":
        with progress.check("TLS that this machine can't do"):
            lab.sh(_USE_TLS)
            _, shown = lab.follow_task(_task("tls", "true"))
            require("tlshd of the package ktls-utils is not installed" in shown, shown)
        return
    with progress.check("an NFS server that takes TLS alone: refused without"):
        lab.sh(_START_TLS)
        code, shown = lab.follow_task(_task("plain", "true"))
        require(code != 0 and "mount.nfs4: " in shown, f"exit {code}: {shown}")
    with progress.check("mounted over TLS"):
        lab.sh(_USE_TLS)
        task_id = lab.run_task(_task("tls", _WRITE_SCRIPT))
        status = lab.wait_for_status(task_id, "RUNNING", "STOPPED")
        require(status == "RUNNING", lab.describe(task_id).get("stoppedReason", status))
        lab.wait_for(f"cat {_file(lab, task_id)}")
        require("xprtsec=tls" in lab.sh("cat /proc/self/mountinfo"), "mounted without TLS")
    _check_outage(lab, progress, task_id)
    with progress.check("over TLS: another agent, and the server away: the task goes on") as note:
        lab.sh("systemctl restart fargate-agent")
        _check_outage(lab, progress, task_id)
        note(f"stopped in {_stop(lab, task_id):.1f} s")
        require(lab.sh("pgrep -cx tlshd") == "1", "a tlshd of the task is left")


def _stop(lab: Lab, task_id: str) -> float:
    begun = time.monotonic()
    lab.sh(f"fargate stop {task_id} --wait")
    took_s = time.monotonic() - begun
    require(took_s < _STOP_LIMIT_S, f"the stop took {took_s:.0f} s")
    require_nothing_left(lab, task_id)
    return took_s


def _file(lab: Lab, task_id: str) -> str:
    """Where the server has what a task writes."""
    return f"/srv/nas/{lab.address(task_id)}"


def _task(name: str, script: str) -> dict[str, Any]:
    mounts = [{"sourceVolume": "efs", "containerPath": "/efs"}]
    volume = {"name": "efs", "efsVolumeConfiguration": {"fileSystemId": _FS}}
    return {**definition(f"efs-{name}", script, mountPoints=mounts), "volumes": [volume]}
