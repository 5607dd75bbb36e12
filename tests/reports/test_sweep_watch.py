"""The live view of a sweep: true to the rows, eighty columns, and it only reads."""

import io
import json
import time

import pytest
from rich.console import Console

from jaxrec.reports.sweep_findings import gathered
from jaxrec.reports.sweep_rows import four
from jaxrec.reports.sweep_watch import time_left, view, watch, watching


def shown(rows, about, now=0.0, width=80):
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(view(rows, about, now, width))
    return out.getvalue()


def at_work(rows, *numbers, since):
    """The rows with some of them at work still."""
    return [
        r | {"state": "running", "objectives": {}, "valid": {}, "attempts": [r["attempts"][-1] | {
            "state": "running", "start": since, "end": None, "seconds": None}]} if r["number"] in numbers else r
        for r in rows
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80])
def test_it_shows_the_best_the_workers_and_the_failures(synthetic, width):
    about, rows = synthetic(60, seeds=2, failed=0.2)
    rows = at_work(rows, 3, 70, since=1000.0)
    text = shown(rows, about, now=1075.0, width=width)
    sweep = gathered(about, rows)
    assert all(len(line) <= width for line in text.splitlines())
    assert four(sweep.best.mean) in text
    counts = sweep.counts()
    assert f"{counts['done']:,} done" in text
    assert "2 running" in " ".join(text.split())
    assert "1 min 15 s" in text
    assert "left" in text
    assert any(one in text for one in ("epoch 2 loss nan", "out of memory", "lease"))


def test_the_time_left_is_the_work_left_shared_by_the_workers():
    done = [
        {"number": n, "state": "done", "point": {}, "objectives": {"ndcg@10": 0.1}, "seconds": 10.0} for n in range(4)
    ]
    busy = [
        {"number": n, "state": "running", "point": {}, "attempts": [{"start": 100.0, "worker": str(n)}]} for n in (4, 5)
    ]
    assert time_left(gathered({}, done + busy), 10, 104.0) == pytest.approx((6 * 10 - 2 * 4) / 2)
    assert time_left(gathered({}, done), 10, 104.0) is None
    assert time_left(gathered({}, busy), 10, 104.0) is None


@pytest.mark.parametrize("count", [0, 1])
def test_little_or_nothing_is_shown_too(synthetic, count):
    about, rows = synthetic(count, failed=0, pruned=0)
    assert "all have ended" in shown(rows, about) if count else "none has begun" in shown(rows, about)


def test_nothing_of_a_users_text_is_obeyed(synthetic):
    about, rows = synthetic(4, failed=0, pruned=0)
    rows[0]["state"] = rows[0]["attempts"][-1]["state"] = "failed"
    rows[0]["attempts"][-1] |= {"log": ["\x1b[2J[red]gone\x07", ""], "signature": "[/bold]\x1b]0;"}
    text = shown(rows, about)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]gone" in text


def test_it_reads_until_it_is_stopped_and_leaves_the_last_view(synthetic):
    about, rows = synthetic(6, failed=0, pruned=0)
    seen = []

    def read():
        seen.append(len(seen))
        return rows[: 2 * len(seen)]

    out = io.StringIO()
    watch(read, about, lambda: len(seen) >= 2, every=0.01, console=Console(file=out, width=80, force_terminal=True))
    assert len(seen) == 3
    assert "6 trials: 6 done" in out.getvalue().partition("6 trials: 4 done")[2]


HEARD: list[str] = []


def heard(capfd):
    """All that was printed so far."""
    HEARD.append(capfd.readouterr().err)
    return "".join(HEARD)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_shows_the_files_of_a_sweep_that_something_else_runs(synthetic, tmp_path, capfd):
    about, rows = synthetic(6, failed=0, pruned=0)
    said = []
    with watching(tmp_path / "sweep", said.append) as say:
        say("it begins")
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(about))
        assert said == [], "what is said would tear the view"
        until(lambda: "it begins" in heard(capfd))
        say("and goes on [with brackets]")
    assert "6 trials: 6 done" in heard(capfd)
    assert heard(capfd).count("it begins") == 1
    assert ("and goes on [with brackets]" in heard(capfd)) != (said == ["and goes on [with brackets]"])
    with watching(tmp_path / "nothing", said.append):
        pass
