"""Runs inside the virtual machine: does the commands that come in on a virtio port.

A request is one line of JSON, `{"id", "command", "timeout_s"}`; the answer has `id`, `code`,
`stdout` and `stderr`. Requests are done side by side. At the start the boot id is said.
"""

import json
import subprocess
import threading
from pathlib import Path
from typing import Any, BinaryIO

PORT = "/dev/virtio-ports/shell"
TIMED_OUT = 124

_writing = threading.Lock()


def main() -> None:
    with Path(PORT).open("r+b", buffering=0) as port:
        say(port, {"boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
        unfinished = b""
        while chunk := port.read(65536):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    threading.Thread(target=answer, args=(port, json.loads(line))).start()


def answer(port: BinaryIO, request: dict[str, Any]) -> None:
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", request["command"]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=request["timeout_s"],
            errors="replace",
            cwd="/root",
        )
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        code, stdout = TIMED_OUT, (error.stdout or b"").decode(errors="replace")
        stderr = f"timed out after {request['timeout_s']} s"
    say(port, {"id": request["id"], "code": code, "stdout": stdout, "stderr": stderr})


def say(port: BinaryIO, document: dict[str, Any]) -> None:
    with _writing:
        left = memoryview(b"\n" + json.dumps(document).encode() + b"\n")
        while left:
            left = left[port.write(left) :]


if __name__ == "__main__":
    main()
