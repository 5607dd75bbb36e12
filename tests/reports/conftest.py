"""Sweeps that never ran, as plain rows of the ledger, and a browser without a network to look at their pages."""

import json
import math
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Chromium reads commands from its third file and answers in its fourth.
PIPES = """import fcntl, os, sys
pair = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
os.dup2(pair[0], 3), os.dup2(pair[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])"""
SPACE = {
    "dimensions": [
        {"name": "model.cell", "kind": "choice", "choices": ["gru", "lstm", "lru", "mingru"]},
        {"name": "model.width", "kind": "choice", "choices": [32, 64, 128, 256]},
        {"name": "optimizer.lr", "kind": "log", "low": 1e-4, "high": 1e-2, "log": True},
        {"name": "model.dropout", "kind": "uniform", "low": 0.0, "high": 0.5},
        {"name": "loss.alpha", "kind": "uniform", "low": 0.0, "high": 1.0},
        {"name": "batch.size", "kind": "logint", "low": 8, "high": 256, "log": True},
    ],
    "constants": {"data": "ml-100k"},
}
ERRORS = (
    (
        "failed",
        "ValueError: batch.length is 0",
        "ValueError-1f2e",
        ["Traceback (most recent call last):", "  in fit", "E"],
    ),
    ("lost", "the lease expired", "lease", []),
)


def synthetic(points=40, *, seeds=1, extra=0, objectives=("ndcg@10", "seconds"), pruned=0.5, failed=0.06, workers=4,
              edge=False, draw=0):  # fmt: skip
    """`about` and rows of a sweep of ``points`` configurations with ``seeds`` trials each, the same for the same
    arguments. ``extra`` further dimensions do nothing; with ``edge`` more learning rate is always better.
    """
    rng = np.random.default_rng(draw)
    free = [0.0] * workers
    space = SPACE | {"dimensions": SPACE["dimensions"] + [
        {"name": f"extra.option_{n}", "kind": "uniform", "low": -1.0, "high": 1.0} for n in range(extra)]}  # fmt: skip
    rows = []
    for _ in range(points):
        point = drawn(rng, extra)
        for repeat in range(seeds):
            rows.append(trial(rng, len(rows), point, repeat, free, pruned, failed, edge, objectives))
    about = {
        "space": space, "search": "random", "seed": 7, "trials": len(rows), "created": "2025-03-01T10:00:00+00:00",
        "objectives": [{"name": name, "direction": "minimize" if name in ("seconds", "parameters") else "maximize"}
                       for name in objectives],
        "command": "jaxrec sweep space.toml --out sweeps/cells --trials 300 --workers 4",
    }  # fmt: skip
    return about, json.loads(json.dumps(rows))


def drawn(rng, extra):
    cell = str(rng.choice(["gru", "lstm", "lru", "mingru"]))
    point = {
        "model.cell": cell,
        "model.width": int(rng.choice([32, 64, 128, 256])),
        "optimizer.lr": float(10 ** rng.uniform(-4, -2)),
        "model.dropout": float(rng.uniform(0, 0.5)),
        "batch.size": round(2 ** rng.uniform(3, 8)),
    }
    if rng.uniform() < 0.5:
        point["loss.alpha"] = float(rng.uniform(0, 1))
    return point | {f"extra.option_{n}": float(rng.uniform(-1, 1)) for n in range(extra)}


def quality(point, edge):
    lr = math.log10(point["optimizer.lr"])
    bonus = {"gru": 0.012, "lstm": 0.008, "lru": 0.015, "mingru": 0.0}[point["model.cell"]]
    peak = 0.02 * (lr + 2) if edge else -0.018 * (lr + 2.6) ** 2
    return (0.1 + bonus + peak + 0.006 * math.log2(point["model.width"] / 32)
            - 0.05 * (point["model.dropout"] - 0.2) ** 2 + 0.004 * point.get("loss.alpha", 0))  # fmt: skip


def trial(rng, number, point, repeat, free, pruned, failed, edge, objectives):
    worker = int(np.argmin(free))
    best = max(0.004, quality(point, edge) + rng.normal(0, 0.002))
    full = int(rng.integers(12, 21))
    kind = rng.uniform()
    state, ran = "done", full
    if kind < failed:
        state, ran = str(rng.choice(["diverged", "out_of_memory", "failed"])), int(rng.integers(0, 4))
    elif kind < failed + pruned * (0.95 if best < 0.115 else 0.25):
        state, ran = "pruned", int(rng.choice([2, 4, 8], p=[0.5, 0.3, 0.2]))
    pace = 0.4 + point["model.width"] / 80 + 40 / point["batch.size"] / 10
    compiling = 1.5 + 0.5 * rng.uniform()
    curve = [best * (1 - math.exp(-(epoch + 1) / 4)) + rng.normal(0, 0.0008) for epoch in range(ran)]
    spent = compiling + pace * ran
    readings = [{"epoch": e + 1, "seconds": compiling + pace * (e + 1), "values": {"ndcg@10": v, "hr@10": 1.8 * v}}
                for e, v in enumerate(curve)]  # fmt: skip
    attempts = []
    if rng.uniform() < 0.03:
        kind, reason, signature, log = ERRORS[1]
        attempts.append(attempt(number, 0, worker, free, 0.4 * spent, compiling, kind, reason, signature, log))
    ended = {
        "done": (None, None, []), "pruned": ("given up by the pruner", None, []),
        "diverged": ("the gradient is not finite at step 12", "diverged", ["epoch 1 loss 7.2", "epoch 2 loss nan"]),
        "out_of_memory": ("RESOURCE_EXHAUSTED: 2.1 GiB asked", "oom", ["compiling", "out of memory"]),
        "failed": ERRORS[0][1:],
    }[state]  # fmt: skip
    attempts.append(attempt(number, len(attempts), worker, free, spent, compiling, state, *ended))
    finished = state == "done"
    weights = int(1700 * point["model.width"] + 8 * point["model.width"] ** 2)
    value = max(curve) if curve else None
    known = {"ndcg@10": value, "seconds": spent, "parameters": weights}
    width, cell = point["model.width"], point["model.cell"]
    return {
        "number": number, "id": f"{number:08x}-s{repeat}", "state": state, "point": point, "seed": repeat,
        "repeat": repeat,
        "config": {"data": "ml-100k", "model": {"cell": cell, "width": width, "dropout": point["model.dropout"]},
                   "optimizer": {"lr": point["optimizer.lr"]}, "batch": {"size": point["batch.size"]}, "seed": repeat,
                   "loss": f"sampled_softmax(negatives=256, alpha={point['loss.alpha']})" if "loss.alpha" in point
                   else "softmax"},
        "run": f"runs/{number:08x}-s{repeat}", "same_as": None,
        "valid": {"ndcg@10": value, "hr@10": 1.8 * value} if finished else {},
        "test": {"ndcg@10": value * 0.94 + rng.normal(0, 0.001)} if finished else {},
        "objectives": {name: known[name] for name in objectives} if finished else {},
        "seconds": spent, "epochs": ran, "parameters": weights, "readings": readings, "code": "0123abc", "notes": {},
        "attempts": attempts,
    }  # fmt: skip


def attempt(number, place, worker, free, spent, compiling, state, reason, signature, log):
    start = 1_740_823_200 + free[worker]
    free[worker] += spent + 0.5
    return {
        "attempt": 2 * number + place, "worker": f"w{worker}", "host": "node-1", "pid": 4000 + worker,
        "device": "cpu:0",
        "start": start, "end": start + spent, "seconds": spent, "compile_seconds": min(compiling, spent),
        "state": state,
        "reason": reason, "signature": signature, "log": log,
    }  # fmt: skip


@pytest.fixture(scope="session", name="synthetic")
def synthetic_fixture():
    return synthetic


class Browser:
    """Headless Chromium over its debugging pipe, without a network: open a page, ask it things, press and type."""

    def __init__(self, program, profile):
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   "--remote-debugging-pipe",
                   f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions"]  # fmt: skip
        words = [sys.executable, "-c", PIPES, str(to_read), str(to_write), *command]
        self.process = subprocess.Popen(words, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self.number, self.rest, self.session, self.events = 0, b"", None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for name in ("Page", "Runtime", "Log", "Network"):
            self(f"{name}.enable")
        self("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def __call__(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.next()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def next(self):
        while b"\0" not in self.rest:
            found = os.read(self.back, 1 << 20)
            if not found:
                raise RuntimeError("the browser has gone")
            self.rest += found
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def open(self, page, width, height=900, dark=False, script=True):
        """Open a file at a width, with or without its script; returns seconds until it stands and was drawn once."""
        self.events.clear()
        self("Emulation.setScriptExecutionDisabled", value=not script)
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        began = time.perf_counter()
        self("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.next())
        if script:
            self.settle()
        return time.perf_counter() - began

    def settle(self):
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))))")

    def ask(self, expression):
        found = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def complaints(self):
        """What the page said on its console, what it threw, what it asked of a network."""
        self.ask("0")
        said = [event for event in self.events if event.get("method") in
                ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")]  # fmt: skip
        asked = [event["params"]["request"]["url"] for event in self.events
                 if event.get("method") == "Network.requestWillBeSent"]  # fmt: skip
        return said + [url for url in asked if not url.startswith("file:")]

    def drag(self, start, end):
        for kind, (x, y), buttons in (("mousePressed", start, 1), ("mouseMoved", end, 1), ("mouseReleased", end, 0)):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)
        self.settle()

    def press(self, key, shift=False):
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=8 if shift else 0)
        self.settle()

    def picture(self, file, whole=True):
        import base64

        if whole:
            height = self.ask("document.documentElement.scrollHeight")
            width = self.ask("innerWidth")
            self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            time.sleep(0.5)
            self.settle()
        file.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.to)
        os.close(self.back)


def browser_at(profile):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    return Browser(program, profile) if program else None


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    found = browser_at(tmp_path_factory.mktemp("profile"))
    if found is None:
        pytest.skip("no Chromium on the PATH")
    yield found
    found.close()
