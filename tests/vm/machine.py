"""A virtual machine, and the network that it is in.

The network is a bridge in a network namespace that leads nowhere: the machine's two NICs hang on
it, and what listens in that namespace is the world outside.
"""

import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.vm.image import BaseImage

OUTSIDE_ADDRESS: Final = "10.77.0.1"
"""Of the world outside, in the network of the machine's first NIC."""
LAN_GATEWAY: Final = "192.168.57.1"
"""Of the world outside, in the network of the second NIC; docs/install.md has it too."""

BOOT_TIMEOUT_S: Final = 300
COMMAND_TIMEOUT_S: Final = 600
KVM_PROBE_S: Final = 10

_PREFIX: Final = "fargate-vm-"
"""Of what a run makes outside its own directories; the number of its process follows."""
_NICS: Final = ("agent0", "tasks0")
_GRACE_S: Final = 20
"""How much later than the command itself its answer is given up."""


class MachineError(Exception):
    """The machine doesn't do what a machine does."""


class OffError(MachineError):
    """The machine has been switched off."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command in the machine ended."""

    code: int
    stdout: str
    stderr: str


_Answer = queue.Queue[Done | None]
"""Of a command; `None` is that of a machine which was switched off."""


class Switch:
    """A network namespace with a bridge, and a tap for each NIC of a machine."""

    def __init__(self) -> None:
        self.netns = f"{_PREFIX}{os.getpid()}"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.netns)
        try:
            for command in (
                "link set lo up",
                "link add switch type bridge",
                f"address add {OUTSIDE_ADDRESS}/24 dev switch",
                f"address add {LAN_GATEWAY}/24 dev switch",
                "link set switch up",
                *(f"tuntap add {nic} mode tap" for nic in _NICS),
                *(f"link set {nic} master switch up" for nic in _NICS),
            ):
                _ip("-n", self.netns, *command.split())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self.netns)

    @contextmanager
    def serve(self, *argv: str, log: Path) -> Iterator[None]:
        """Run a program in the world outside."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_DIE_WITH_US, *self.enter, *argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        """Run a command in the world outside, and return what it wrote."""
        return subprocess.run(
            [*self.enter, *argv], check=True, capture_output=True, text=True, timeout=timeout_s
        ).stdout

    @property
    def enter(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.netns)


_DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")


class Machine:
    """A virtual machine with a disk of its own; off until `boot`."""

    def __init__(self, base: BaseImage, switch: Switch, project: Path, directory: Path) -> None:
        """Prepare a machine; `project` is a tar archive, which it has as its second disk."""
        self._base = base
        self._switch = switch
        self._project = project
        self._disk = directory / "disk"
        self._socket = directory / "shell"
        self.console = directory / "console"
        self._accelerator = _choose_accelerator(base)
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: dict[int, _Answer] = {}
        self._boots: queue.Queue[str] = queue.Queue()
        self._ids = itertools.count()
        self._connection: socket.socket | None = None
        subprocess.run(["cp", "--sparse=always", base.disk, self._disk], check=True, timeout=120)

    @property
    def accelerated(self) -> bool:
        return self._accelerator == "kvm"

    def boot(self, *, kernel_options: str = "", clock: str = "utc") -> None:
        """Switch the machine on, and wait until systemd has started all.

        `clock` is what its battery-backed clock says, as qemu takes it.
        """
        self._process = subprocess.Popen(
            [*_DIE_WITH_US, *self._switch.enter, *self._qemu(kernel_options, clock)],
            stdin=subprocess.DEVNULL,
        )
        self._connect()
        self.wait_until_booted()

    def reboot(self) -> None:
        """Boot again, in order, and wait as `boot` does."""
        self._send("systemctl reboot", COMMAND_TIMEOUT_S)  # which may end who would answer
        self.wait_until_booted()

    def wait_until_booted(self) -> None:
        """Wait for the next boot.

        Raises:
            MachineError: it takes too long.
        """
        try:
            self._boots.get(timeout=BOOT_TIMEOUT_S)
        except queue.Empty:
            raise MachineError(f"not up after {BOOT_TIMEOUT_S} s") from None

    def cut_power(self) -> None:
        """Switch the machine off without a word; what it hadn't written to its disk is lost."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._connection:
            self._connection.close()
            self._connection = None

    def run(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run a bash command as root.

        Raises:
            MachineError: no answer came.
        """
        answer = _Answer()
        number = self._send(command, timeout_s, answer)
        try:
            done = answer.get(timeout=timeout_s + _GRACE_S)
        except queue.Empty:
            raise MachineError(f"no answer after {timeout_s + _GRACE_S:g} s: {command}") from None
        finally:
            del self._answers[number]
        if done is None:
            raise OffError(f"switched off meanwhile: {command}")
        return done

    def _send(self, command: str, timeout_s: float, answer: _Answer | None = None) -> int:
        if not self._connection:
            raise OffError("the machine is off")
        number = next(self._ids)
        if answer is not None:
            self._answers[number] = answer
        request = {"id": number, "command": command, "timeout_s": timeout_s}
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        return number

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + _GRACE_S
        while True:
            try:
                connection.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise MachineError("qemu doesn't come up") from None
                time.sleep(0.05)
            else:
                break
        self._connection = connection
        threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as lines:
                for line in lines:
                    if line.strip():
                        self._take(json.loads(line))
        except OSError:
            pass
        for answer in list(self._answers.values()):
            answer.put(None)

    def _take(self, document: dict[str, Any]) -> None:
        if "boot_id" in document:
            self._boots.put(document["boot_id"])
        elif answer := self._answers.get(document.pop("id")):
            answer.put(Done(**document))

    def _qemu(self, kernel_options: str, clock: str) -> tuple[str, ...]:
        options = "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0"
        options += f" cryptomgr.notests {kernel_options}"
        return (
            "qemu-system-x86_64", "-machine", "q35", *_processor(self._accelerator),
            "-m", "2048", "-rtc", f"base={clock}",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"file,id=console,path={self.console},append=on",
            "-serial", "chardev:console",
            "-kernel", str(self._base.kernel), "-initrd", str(self._base.initrd),
            "-append", options,
            # what the machine has written survives qemu, as the host's page cache does
            "-drive", f"file={self._disk},if=virtio,format=raw,cache=unsafe",
            "-drive", f"file={self._project},if=virtio,format=raw,readonly=on",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=shell,path={self._socket},server=on,wait=off",
            "-device", "virtserialport,chardev=shell,name=shell",
            *itertools.chain.from_iterable(
                (
                    "-netdev", f"tap,id={nic},ifname={nic},script=no,downscript=no",
                    "-device", f"virtio-net-pci,netdev={nic},mac=52:54:00:00:00:0{number}",
                )
                for number, nic in enumerate(_NICS)
            ),
        )  # fmt: skip


@contextmanager
def machine(base: BaseImage, project: Path) -> Iterator[tuple[Machine, Switch]]:
    """A machine that is off, in a network of its own; nothing is left of both afterwards."""
    with scratch() as directory, Switch() as switch:
        made = Machine(base, switch, project, directory)
        try:
            yield made, switch
        finally:
            made.cut_power()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for as long as the body runs; `sweep_stale` knows whose it is."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as directory:
        yield Path(directory)


def _processor(accelerator: str) -> tuple[str, ...]:
    if accelerator == "kvm":
        return ("-accel", "kvm", "-cpu", "host", "-smp", "2")
    # One processor: up to qemu 8.0, what one processor writes into code that another one is being
    # translated for can be missed, and a kernel that changes itself hangs in its old breakpoint.
    # An old processor is faster to emulate than "max". Without cx16, because the flags that
    # cmpxchg16b sets are sometimes lost in qemu 7.2, and newer kernels crash on that.
    return ("-accel", "tcg", "-cpu", "Nehalem-v1,-cx16", "-smp", "1")


def _choose_accelerator(base: BaseImage) -> str:
    """KVM where a kernel gets as far as to miss its root; a /dev/kvm alone says nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        probe = subprocess.run(
            [
                "qemu-system-x86_64", "-machine", "q35", *_processor("kvm"), "-m", "256",
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", str(base.kernel), "-append", "console=ttyS0 panic=-1",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=KVM_PROBE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if b"Unable to mount root" in probe.stdout else "tcg"


def sweep_stale() -> None:
    """Remove the networks and the directories of runs that were killed."""
    for netns in find_stale(Path("/run/netns")):
        _ip("netns", "del", netns.name)
    for directory in find_stale(Path(tempfile.gettempdir())):
        shutil.rmtree(directory)


def find_stale(place: Path) -> list[Path]:
    """Return what is named after a process that has ended."""
    return [
        path
        for path in place.glob(f"{_PREFIX}[0-9]*")
        if not Path("/proc", path.name.split("-")[2]).exists()
    ]


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise MachineError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
