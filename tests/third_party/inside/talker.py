"""Write a line again and again, until the task is stopped."""

import time

while True:
    print("tick", flush=True)
    time.sleep(0.5)
