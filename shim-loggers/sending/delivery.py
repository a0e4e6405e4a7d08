"""From the pipes of a container to its destination, and to the copy on this machine.

Two threads: this one reads the pipes, writes the copy and fills the spool; another one sends.
"""

import gc
from _queue import Empty
from _thread import stack_size, start_new_thread

from reading.lines import Lines
from reading.pump import STDOUT_FD, has_ended, pump
from reading.shim import END_S
from sending.destination import Destination, Setup
from sending.libc import tune_heap
from sending.sender import Sender
from sending.spool import Spool

STACK_BYTES = 256 * 1024


def deliver(
    setup: Setup, destination: Destination, buffer: tuple[int, bool], sigterm_fd: int
) -> None:
    """Read until the pipes end, and return when all is sent or the time is over.

    `buffer` is its budget in bytes, and whether the container waits when that is used up.
    """
    gc.enable()
    tune_heap()
    max_bytes, blocking = buffer
    spool = Spool(max_bytes, blocking=blocking, max_lines=destination.max_waiting_lines)
    sender = Sender(destination, spool, setup.deadline, setup.reports)
    stack_size(STACK_BYTES)
    start_new_thread(sender.run, ())

    def give(lines: Lines) -> None:
        if setup.copy is not None:
            setup.copy.write(lines)
        spool.put(lines, is_over)

    def is_over() -> bool:
        # While nobody reads the pipes: the logger of a terminal gets no SIGTERM.
        if has_ended(STDOUT_FD):
            setup.deadline.begin(END_S)
        return setup.deadline.is_over()

    fault_path = setup.flags.get("fault-path", "")
    pump(give, destination.max_line_bytes, sigterm_fd, setup.deadline, fault_path)
    setup.deadline.begin(END_S)
    spool.close()
    try:
        sender.ended.get(timeout=setup.deadline.left_s(END_S) + 1)
    except Empty:
        setup.reports.trouble("the destination hangs")
    lost = sender.count_left()
    if lost or spool.dropped or destination.refused:
        setup.reports.loss(
            f"{lost} lines not delivered in time, {spool.dropped} dropped for want of room, "
            f"{destination.refused} refused by the destination"
        )
    if setup.copy is not None:
        setup.copy.close()
