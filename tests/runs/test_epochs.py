"""An epoch that memory cannot lay out is refused before training, with an option that it can."""

import re
from dataclasses import replace

import pytest

from jaxrec.config import Mistake
from jaxrec.data.batches import bytes_while_made
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.runs import epochs
from jaxrec.runs.options import Batch, Config
from jaxrec.runs.run import first_epoch

CONFIG = Config(demo=Demo(users=200, items=100, events=20), batch=Batch(size=4, length=10))


@pytest.fixture(scope="module")
def prepared():
    return prepare(Preparation(demo=CONFIG.demo), lambda _: None)


def asked(**changes):
    return replace(CONFIG, batch=replace(CONFIG.batch, **changes))


def test_what_fits_is_laid_out_and_what_does_not_is_refused_with_numbers(prepared, monkeypatch):
    events, needs = bytes_while_made(prepared, 10, "packed")
    monkeypatch.setattr(epochs, "free_of_machine", lambda: float(needs))
    assert first_epoch(CONFIG, prepared).inputs == events
    monkeypatch.setattr(epochs, "free_of_machine", lambda: needs - 1.0)
    with pytest.raises(Mistake, match=rf"an epoch of {events:,} events takes .* KiB of memory .* KiB are free"):
        first_epoch(CONFIG, prepared)
    assert first_epoch(asked(layout="lanes"), prepared).inputs == events  # never shuffled, hardly a plan


@pytest.mark.parametrize("layout", ["packed", "windows"])
@pytest.mark.parametrize("short", [1.1, 7.0, 40.0])
def test_the_remedy_fits(prepared, monkeypatch, layout, short):
    events, needs = bytes_while_made(prepared, 10, layout)
    monkeypatch.setattr(epochs, "free_of_machine", lambda: needs / short)
    with pytest.raises(Mistake) as refused:
        first_epoch(asked(layout=layout), prepared)
    over = int(re.search(r"--batch.shuffle-over (\d+) takes", str(refused.value))[1])
    assert events / short / 100 < over < events / short
    assert first_epoch(asked(layout=layout, shuffle_over=over), prepared).inputs == events
    with pytest.raises(Mistake, match="shuffle fewer together"):
        first_epoch(asked(layout=layout, shuffle_over=10 * over), prepared)
