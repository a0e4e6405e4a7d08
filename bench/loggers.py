"""From what a container prints to a destination on this machine: how much, at what price.

Destinations take everything and answer at once. The peers that run in between are containerd's own
`file://`, which is the limit of what a container's pipes give, and podman's conmon.

BENCH_LOGGER_MB says how much a container prints (100 if it isn't set), BENCH_LOGGER_ROUNDS how
often (5), BENCH_LOGGER_STARTS how many starts are measured (25), BENCH_LOGGER_RUNNING how many
loggers run at once when memory is (8). With 0 a table is left out. BENCH_LOGGER_DRIVERS says which
drivers (all), by the beginnings of their names: `awslogs,json-file`.
"""

import asyncio
import os
import random
import statistics
import subprocess
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.conmon import JOURNALD, Podman
from bench.logged import (
    IMAGE,
    INSIDE,
    Printer,
    Text,
    Usage,
    count_lines,
    find_logger,
    printing,
    read_bytes,
    removed,
    write_text,
)
from bench.rig import rig
from bench.sinks import Sink, running_sink
from fargate_agent.logdriver.uri import render_uri

LOGGERS = Path(__file__).parent.parent / "shim-loggers"
BYTES = int(os.environ.get("BENCH_LOGGER_MB", "100")) * 1_000_000
ROUNDS = int(os.environ.get("BENCH_LOGGER_ROUNDS", "5"))
STARTS = int(os.environ.get("BENCH_LOGGER_STARTS", "25"))
RUNNING = int(os.environ.get("BENCH_LOGGER_RUNNING", "8"))
CHOSEN = tuple(os.environ.get("BENCH_LOGGER_DRIVERS", "").split(","))
LINE_BYTES = (100, 1024)
SMALL_BYTES = 1_000_000
"""What each of these has printed."""
ARRIVES_S = 60.0
QUIET_S = 8
"""So long they are idle before they print more."""
FULL_TIMES = 24
"""So often that is, which is more than buffers of loggers, sockets and pipes hold."""
SLOW = 10
"""A system call for each line makes slow, so a tenth of the text is enough."""
LIMIT = "containerd file://"
MB = 1e6
MIB = 1024 * 1024
Sizes = tuple[int, int, int]
"""Proportional, resident and own bytes of a process."""


@dataclass
class Driver:
    """A log driver, and where it sends to."""

    uri: str | None
    sink: Sink | None = None
    log: Path | None = None
    """The file that all goes to, if it is one."""
    lossy: bool = False
    part: int = 1
    """Containers print only this part of what others do."""


@dataclass
class Figures:
    """What the rounds of one driver brought."""

    rates: list[float] = field(default_factory=list)
    """Bytes a second that arrived."""
    cpu: list[float] = field(default_factory=list)
    """Seconds a GB."""
    peaks: list[int] = field(default_factory=list)
    deletes: list[float] = field(default_factory=list)
    sent: int = 0
    arrived: int = 0


async def measure(root: Path) -> None:
    """Print the tables."""
    with ExitStack() as stack:
        journal = stack.enter_context(running_sink("unixgram", root, _journal(root)))
        drivers = _make_drivers(root, stack, journal)
        async with rig(root) as machine, printing(machine, root) as printer:
            if ROUNDS:
                await _measure_rates(root, printer, drivers, journal)
            if RUNNING:
                small = write_text(root / "small", 100, SMALL_BYTES)
                await _measure_memory(printer, drivers, small)
            if STARTS:
                await _measure_starts(printer, drivers, write_text(root / "one", 100, 100))


def _make_drivers(root: Path, stack: ExitStack, journal: Sink) -> dict[str, Driver]:
    kinds = ("tcp", "forward", "unix", "udp", "http")
    tcp, forward, unix, udp, http = (
        stack.enter_context(running_sink(kind, root)) for kind in kinds
    )
    certificate = _make_certificate(root)
    forward_tls = stack.enter_context(running_sink("forward", root, certificate=certificate))
    https = stack.enter_context(running_sink("http", root, certificate=certificate))
    log = root / "log"
    json_file = render_uri(LOGGERS / "json-file", {"log-path": str(log)})
    address, url = {"address": f"tcp://127.0.0.1:{tcp.port}"}, f"http://127.0.0.1:{http.port}"
    aws, fluentd = _make_awslogs(url), {"address": f"tcp://127.0.0.1:{forward.port}"}
    fluentd_tls = {"address": f"tls://localhost:{forward_tls.port}", "capath": str(certificate)}
    splunk = {"token": "bench", "capath": str(certificate)}
    drivers = {
        LIMIT: Driver(f"file://{log}", log=log),
        "json-file": Driver(json_file, log=log),
        "awslogs": Driver(_render(root, "awslogs", aws), http),
        "awslogs, no copy": Driver(_render(None, "awslogs", aws), http),
        "fluentd, tcp": Driver(_render(root, "fluentd", fluentd), forward),
        "fluentd, tcp, no copy": Driver(_render(None, "fluentd", fluentd), forward),
        "fluentd, unix": Driver(_render(root, "fluentd", {"address": f"unix://{unix.path}"}), unix),
        "fluentd, tls": Driver(_render(root, "fluentd", fluentd_tls), forward_tls),
        "splunk": Driver(_render(root, "splunk", splunk | {"url": url}), http),
        "splunk, https": Driver(
            _render(root, "splunk", splunk | {"url": f"https://localhost:{https.port}"}), https
        ),
        "syslog, tcp": Driver(_render(root, "syslog", address), tcp),
        "gelf, tcp": Driver(_render(root, "gelf", address), tcp),
        "gelf, udp": Driver(
            _render(root, "gelf", {"address": f"udp://127.0.0.1:{udp.port}"}),
            udp,
            lossy=True,
            part=SLOW,
        ),
        "journald": Driver(
            _render(root, "journald", {"socket": str(journal.path)}), journal, part=SLOW
        ),
    }
    return {name: one for name, one in drivers.items() if name == LIMIT or name.startswith(CHOSEN)}


def _journal(root: Path) -> Path:
    """Make the place of journald's socket, as it lies below `/run/systemd`."""
    path = root / "systemd" / "journal" / "socket"
    path.parent.mkdir(parents=True)
    return path


def _make_certificate(root: Path) -> Path:
    """Make a certificate that signs itself, and its key, in one file."""
    path = root / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out"]
    certificate = subprocess.run([*command, "/dev/stdout"], check=True, capture_output=True).stdout
    with path.open("ab") as file:
        file.write(certificate)
    return path


def _make_awslogs(url: str) -> dict[str, str]:
    names = {"group": "bench", "region": "us-east-1", "stream": "bench"}
    return {**names, "endpoint": url, "credentials-endpoint": f"{url}/keys"}


def _render(root: Path | None, driver: str, options: dict[str, str]) -> str:
    """Name a logger as the agent does; nothing may be lost. With a root, there is a local copy."""
    flags = {
        "log-driver": driver,
        "container-id": "0123456789abcdef" * 4,
        "container-name": "bench",
        "mode": "blocking",
        "netns": "/proc/self/ns/net",
        **{f"{driver}-{name}": value for name, value in options.items()},
    }
    if root is not None:
        path = root / "copy" / "log"
        flags |= {"log-path": str(path), "copy-max-size": "10m", "copy-max-file": "2"}
    return render_uri(LOGGERS / "logger", flags)


async def _measure_rates(
    root: Path, printer: Printer, drivers: dict[str, Driver], journal: Sink
) -> None:
    podman = await asyncio.to_thread(Podman, root, IMAGE, root / "loggers.tar", journal)
    try:
        for line_bytes in LINE_BYTES:
            text = write_text(root / f"lines-{line_bytes}", line_bytes)
            _print_rates(await _measure_rate(printer, drivers, podman, text), line_bytes)
    finally:
        await asyncio.to_thread(podman.close)


async def _measure_rate(
    printer: Printer, drivers: dict[str, Driver], podman: Podman, text: Text
) -> dict[str, Figures]:
    times = max(1, BYTES // text.size_bytes)
    figures: dict[str, Figures] = {}
    for driver in drivers.values():  # warms caches
        await _print_through(printer, driver, text, 1, Figures())
    for _ in range(ROUNDS):
        for name, driver in drivers.items():
            taken = figures.setdefault(name, Figures())
            await _print_through(printer, driver, text, max(1, times // driver.part), taken)
        for name in podman.drivers:
            some = max(1, times // SLOW) if name == JOURNALD else times
            seconds, usage, arrived = await asyncio.to_thread(podman.run, name, text, some)
            taken = figures.setdefault(name, Figures())
            _add(taken, text, some, seconds, usage)
            taken.arrived += arrived
    return figures


async def _print_through(
    printer: Printer, driver: Driver, text: Text, times: int, taken: Figures
) -> None:
    """Let a container print a file several times, until all of it has arrived."""
    command = ["/bin/cat", *[INSIDE] * times]
    if driver.sink is not None:
        driver.sink.forget()
        done, usage = await printer.run(command, text, driver.uri)
        arrived, last_s = driver.sink.lines, driver.sink.last_s
        if arrived != text.lines * times and not driver.lossy:
            raise RuntimeError(f"{arrived} of {text.lines * times} lines came")
    elif driver.log is not None:
        with removed(driver.log):
            done, usage = await printer.run(command, text, driver.uri)
            last_s = driver.log.stat().st_mtime - time.time() + time.monotonic()
            arrived = await asyncio.to_thread(count_lines, driver.log)
    else:
        raise ValueError("it has no destination")
    _add(taken, text, times, last_s - done.began_s, usage)
    taken.deletes.append(done.delete_s)
    taken.arrived += arrived


def _add(taken: Figures, text: Text, times: int, seconds: float, usage: Usage) -> None:
    size = text.size_bytes * times
    taken.rates.append(size / seconds)
    taken.cpu.append(usage.cpu_s / size * 1e9)
    taken.peaks.append(usage.peak_bytes)
    taken.sent += text.lines * times


def _print_rates(figures: dict[str, Figures], line_bytes: int) -> None:
    base = statistics.median(figures[LIMIT].rates)
    print(
        f"\nlines of {line_bytes} bytes, {BYTES / MB:.0f} MB, n={ROUNDS}\n{'':26}"
        f"{'lines/s':>11}{'MB/s':>8}{'ratio':>7}{'CPU s/GB':>10}{'peak MiB':>10}"
        f"{'Delete ms':>11}{'sent':>11}{'arrived':>11}"
    )
    for name, taken in figures.items():
        rate, cpu = statistics.median(taken.rates), statistics.median(taken.cpu)
        delete = f"{statistics.median(taken.deletes) * 1e3:.0f}" if taken.deletes else ""
        print(
            f"{name:26}{rate / line_bytes:11,.0f}{rate / MB:8.1f}{rate / base:7.2f}{cpu:10.2f}"
            f"{max(taken.peaks) / MIB:10.1f}{delete:>11}{taken.sent:11}{taken.arrived:11}"
        )


async def _measure_memory(printer: Printer, drivers: dict[str, Driver], text: Text) -> None:
    """Let many run at once, and look at what they hold when all that they printed is away.

    Then they print more than their buffers hold, and nobody takes it.
    """
    print(
        f"\nmemory of a logger, {RUNNING} running, idle after {text.size_bytes / MB:.0f} MB each\n"
        f"{'':26}{'proportional':>14}{'resident':>14}{'own':>14}{'full: prop.':>14}{'own':>14}"
    )
    for name, driver in drivers.items():
        if name == LIMIT:
            continue
        idle, full = await _hold(printer, driver, text)
        means = [statistics.mean(size) / MIB for size in zip(*idle, strict=True)]
        if driver.sink is not None and not driver.lossy:
            proportional, _, own = zip(*full, strict=True)
            means += [statistics.mean(proportional) / MIB, statistics.mean(own) / MIB]
        print(f"{name:26}" + "".join(f"{mean:10.2f} MiB" for mean in means))


async def _hold(printer: Printer, driver: Driver, text: Text) -> tuple[list[Sizes], list[Sizes]]:
    script = f"cat {INSIDE}; sleep {QUIET_S}; cat {' '.join([INSIDE] * FULL_TIMES)}; sleep 1000"
    names, pids = [], []
    if driver.sink is not None:
        driver.sink.forget()
    try:
        for _ in range(RUNNING):
            names.append(await printer.make(["--", "/bin/sh", "-c", script], text))
            shim = await printer.create(names[-1], driver.uri)
            pids.append(find_logger(shim) or shim)
            await printer.start(names[-1])
        if driver.sink is not None and not driver.lossy:
            await asyncio.to_thread(driver.sink.wait_for, text.lines * RUNNING, ARRIVES_S)
        await asyncio.sleep(1)  # what has arrived is let go of a moment later
        idle = _read_sizes(pids)
        with driver.sink.standing_still() if driver.sink is not None else nullcontext():
            await asyncio.sleep(QUIET_S + 2)
            return idle, _read_sizes(pids)
    finally:
        for name in names:
            await printer.kill(name)


def _read_sizes(pids: list[int]) -> list[Sizes]:
    return [
        (
            read_bytes(pid, "smaps_rollup", "Pss"),
            read_bytes(pid, "smaps_rollup", "Rss"),
            read_bytes(pid, "smaps_rollup", "Private_Dirty"),
        )
        for pid in pids
    ]


async def _measure_starts(printer: Printer, drivers: dict[str, Driver], text: Text) -> None:
    none = "no logger"
    kinds = {none: Driver(None), **drivers}
    starts: dict[str, list[float]] = {name: [] for name in kinds}
    deletes: dict[str, list[float]] = {name: [] for name in kinds}
    for round_number in range(STARTS + 2):
        # in another order each time: what one leaves to be done costs the next one
        for name, driver in random.sample(list(kinds.items()), len(kinds)):
            done, _ = await printer.run(["/bin/cat", INSIDE], text, driver.uri)
            if round_number >= 2:  # the first ones warm caches
                starts[name].append(done.start_s)
                deletes[name].append(done.delete_s)
    print(
        f"\nstart of a container, and its Delete after one line, n={STARTS}\n"
        f"{'':26}{'start':>10}{'added':>10}{'Delete':>10}{'added':>10}"
    )
    for name in kinds:
        figures = (
            statistics.median(starts[name]),
            _median_more(starts[name], starts[none]),
            statistics.median(deletes[name]),
            _median_more(deletes[name], deletes[none]),
        )
        print(f"{name:26}" + "".join(f"{seconds * 1e3:7.1f} ms" for seconds in figures))


def _median_more(these: list[float], those: list[float]) -> float:
    """Compare what ran one after the other, since the machine's load changes."""
    return statistics.median(one - other for one, other in zip(these, those, strict=True))
