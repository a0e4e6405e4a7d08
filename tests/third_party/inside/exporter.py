"""Run an exporter of a task's figures, and say what Prometheus would read there."""

import json
import os
import subprocess
import sys
import time
from urllib.request import urlopen

END = time.monotonic() + float(os.environ["PATIENCE_S"])
PROGRAM = [sys.executable, "-m", "ecs_container_exporter.main", "--interval", "1"]

with subprocess.Popen(PROGRAM, stderr=subprocess.DEVNULL) as exporter:
    while True:
        try:
            with urlopen("http://127.0.0.1:9545/metrics", timeout=10) as answer:
                text = answer.read().decode()
            break
        except OSError:
            if time.monotonic() > END:
                raise
            time.sleep(0.2)
    exporter.terminate()
print(json.dumps(text), flush=True)
