"""A sweep of several workers, killed for real, ends in the table of one that was not; the long form is the script's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("search", "workers", "together"), [("sobol", 4, 1), ("grid", 2, 2)])
def test_four_kills_of_a_sweep_and_its_workers_leave_no_trace(search, workers, together):
    command = [sys.executable, "-W", "ignore", "scripts/kill_sweep.py", "--kills", "4", "--trials", "8", "--no-row"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command += ["--search", search, "--workers", str(workers), "--together", str(together)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["kills"] >= 4
    assert sum(row["points"].values()) >= 1
    assert row["random"]["sweep"] >= 1
    assert together > 1 or row["at_once"] == 0  # how many of four fall while two train is chance
    assert row["different"] == row["lost"] == row["twice"] == row["stray"] == 0
