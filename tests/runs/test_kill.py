"""A run killed for real, at planted points and at random times, ends in the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_five_kills_leave_no_trace():
    command = [sys.executable, "-W", "ignore", "scripts/kill_anywhere.py", "--moments", "5", "--kills", "5", "--no-row"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["moments"] == row["same"] == 5
    assert sum(count for name, count in row["points"].items() if name != "a random time") == 3
