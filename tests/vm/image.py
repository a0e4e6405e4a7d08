"""The machine before anything is installed: Debian with systemd, containerd and Python.

Built once and kept under `~/.cache`, named after the hash of all that goes into it. The host's apt
configuration says where packages come from.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "iproute2", "iputils-ping",
    "nftables", "make", "git", "apparmor", "containerd", "runc", "catatonit", "python3",
    "python3-venv", "ca-certificates", "busybox-static", "linux-image-cloud-amd64",
    "initramfs-tools", "nfs-kernel-server", "xfsprogs",
)  # fmt: skip
MORE_PACKAGES: Final = {"trixie": ("ktls-utils", "openssl")}
"""By the suite: NFS over TLS needs Linux 6.5, which bookworm hasn't."""

DISK_SIZE: Final = "3G"
BUILD_TIMEOUT_S: Final = 600

_GUEST: Final = Path(__file__).parent / "guest"
_EXCLUDED: Final = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
_BOOT_MODULES: Final = ("virtio_pci", "virtio_blk", "ext4")
"""All that the initial RAM disk needs; the kernel's default set would take ten times as long."""

_FILES: Final = {
    "etc/hostname": "fargate-vm\n",
    "etc/hosts": "127.0.0.1 localhost fargate-vm\n",
    "etc/fstab": "/dev/vda / ext4 rw 0 1\n",
    "etc/machine-id": "",
    "etc/resolv.conf": "# no name server: nothing here has a name\n",
    "etc/udev/rules.d/60-virtio-ports.rules": 'SUBSYSTEM=="virtio-ports", TAG+="systemd"\n',
    "etc/systemd/network/10-eth0.network": (
        "[Match]\nName=eth0\n\n[Network]\nAddress=10.77.0.2/24\nGateway=10.77.0.1\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    "etc/systemd/network/10-eth1.network": (
        "[Match]\nName=eth1\n\n[Link]\nActivationPolicy=up\nRequiredForOnline=no\n\n"
        "[Network]\nLinkLocalAddressing=no\n"
    ),
}
_ENABLED: Final = {
    "multi-user.target.wants": ("vm-shell.service", "systemd-networkd.service"),
    "network-online.target.wants": ("systemd-networkd-wait-online.service",),
}
_MASKED: Final = (
    "e2scrub_reap.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "nfs-server.service", "nfs-blkmap.service", "rpcbind.service", "rpcbind.socket",
    "rpc-statd-notify.service", "nfs-client.target", "tlshd.service",
)  # fmt: skip
"""The last are of the NFS server and of its TLS, which tests start themselves."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What a machine boots from; none of the files is ever written to."""

    directory: Path

    @property
    def disk(self) -> Path:
        """An ext4 file system without a partition table."""
        return self.directory / "disk.ext4"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def python(self) -> str:
        """Version of the machine's Python, e.g. `3.11`."""
        return (self.directory / "python").read_text()


def ensure_base_image(suite: str) -> BaseImage:
    """Return the machine of a suite; it is built when there is none of these inputs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fargate-agent-vm"
    image = BaseImage(cache / f"{suite}-{_hash_inputs(suite)}")
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{suite}.lock"):
        for killed in cache.glob(f".{suite}-*"):
            run_on_host("rm", "-rf", "--one-file-system", str(killed))
        if not image.directory.is_dir():
            for old in cache.glob(f"{suite}-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=f".{suite}-", dir=cache) as scratch:
                _build(suite, Path(scratch))
                (Path(scratch) / "image").rename(image.directory)
    return image


def _hash_inputs(suite: str) -> str:
    inputs = hashlib.sha256(suite.encode())
    for file in (Path(__file__), *sorted(_GUEST.iterdir())):
        inputs.update(file.read_bytes())
    return inputs.hexdigest()[:12]


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(suite: str, scratch: Path) -> None:
    root, image = scratch / "root", scratch / "image"
    image.mkdir()
    modules = "".join(f"{name}\\n" for name in _BOOT_MODULES)
    run_on_host(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
        f"--include={','.join((*PACKAGES, *MORE_PACKAGES.get(suite, ())))}",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"'
        ' "$1/usr/share/initramfs-tools/modules.d"',
        '--essential-hook=echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"',
        f"--essential-hook=printf '{modules}' >\"$1/usr/share/initramfs-tools/modules.d/vm\"",
        suite, str(root), find_mirror(),
    )  # fmt: skip
    _configure(root)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((root / "boot").glob(f"{name}-*")), image / name)
    (image / "python").write_text((root / "usr/bin/python3").readlink().name.removeprefix("python"))
    run_on_host(
        "mkfs.ext4", "-q", "-F", "-L", "root", "-d", str(root), str(image / "disk.ext4"), DISK_SIZE
    )


def _configure(root: Path) -> None:
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(text)
    units = root / "etc/systemd/system"
    shutil.copy(_GUEST / "shell.py", root / "usr/local/lib/vm-shell.py")
    shutil.copy(_GUEST / "vm-shell.service", units)
    for target, names in _ENABLED.items():
        (units / target).mkdir(exist_ok=True)
        for name in names:
            place = units if (units / name).is_file() else root / "usr/lib/systemd/system"
            link = units / target / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"/{place.relative_to(root)}/{name}")
    for name in _MASKED:
        (units / name).symlink_to("/dev/null")
    (root / "var/log/journal").mkdir(exist_ok=True)


def find_mirror() -> str:
    """The first of Debian's own package archives that this host uses."""
    targets = run_on_host(
        "apt-get", "indextargets", "--format", "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)",
        "Created-By: Packages",
    )  # fmt: skip
    for line in targets.splitlines():
        origin, label, uri = line.split("\t")
        if origin == label == "Debian":
            return uri
    raise RuntimeError("apt has no list of Debian's packages: run apt-get update")


def run_on_host(*argv: str) -> str:
    """Run a program that takes minutes at most, and return what it printed.

    Raises:
        RuntimeError: it failed; the text has the end of what it said.
    """
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(
            f"{argv[0]} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-3000:]}"
        )
    return done.stdout
