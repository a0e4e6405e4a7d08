"""What is told of errors of containerd and runC, by the agent and in a container's log."""

import pytest

from fargate_agent.containerd.host_paths import hide_host_paths
from reading import host_paths as in_loggers

ROOT = "/srv/state/containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots"
BUNDLE = "/run/x/io.containerd.runtime.v2.task/fargate/0123-web"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            f"link {ROOT}/3/fs/h/a {ROOT}/3/fs/h/c: no such file or directory",
            "link /h/a /h/c: no such file or directory",
            id="link",
        ),
        pytest.param(
            "mount callback failed on /srv/root/tmpmounts/containerd-mount42: bad",
            "mount callback failed on …: bad",
            id="temporary-mount",
        ),
        pytest.param(
            "open /srv/root/tmpmounts/containerd-mount42/etc/x: bad",
            "open /etc/x: bad",
            id="file-of-a-temporary-mount",
        ),
        pytest.param(
            f"mkdir {BUNDLE}/rootfs/v/x: not a directory", "mkdir /v/x: not a directory", id="mkdir"
        ),
        pytest.param(f"open {BUNDLE}/config.json: bad", "open …: bad", id="bundle"),
        pytest.param(f"open `{BUNDLE}/config.json`: Bad", "open `…`: Bad", id="as crun writes it"),
        pytest.param(
            "open /srv/root/io.containerd.content.v1.content/ingest/a1/data: bad",
            "open …: bad",
            id="content",
        ),
        pytest.param(
            "lstat /run/netns/fargate-0123456789abcdef: bad",
            "lstat the task's network namespace: bad",
            id="netns",
        ),
        pytest.param(
            'exec: "/usr/bin/app": stat /usr/bin/app: no such file or directory',
            'exec: "/usr/bin/app": stat /usr/bin/app: no such file or directory',
            id="of-the-container",
        ),
    ],
)
def test_paths_of_the_machine_are_left_out(text: str, told: str) -> None:
    assert hide_host_paths(text) == told
    assert in_loggers.hide_host_paths(text.encode(), "").decode() == told


def test_a_logger_leaves_out_the_directory_of_its_task() -> None:
    line = (
        b'runc create failed: error mounting "/srv/tasks/1/etc/hosts" to rootfs at "/etc/hosts": '
        b"mount /srv/tasks/1/etc/hosts:/etc/hosts, flags: 0x5000: not a directory\n"
    )

    assert in_loggers.hide_host_paths(line, "/srv/tasks/1/log-faults/web") == (
        b'runc create failed: error mounting "the task\'s directory/etc/hosts" to rootfs at '
        b'"/etc/hosts": mount the task\'s directory/etc/hosts:/etc/hosts, flags: 0x5000: '
        b"not a directory\n"
    )
