"""What a run is called: options that came later do not rename the runs that there were."""

from types import SimpleNamespace

import pytest

from jaxrec.config import Call, resolve, to_dict
from jaxrec.runs.ancestry import differing
from jaxrec.runs.change import LATER, told
from jaxrec.runs.options import Config, Model, Optimizer
from jaxrec.runs.run import identity
from jaxrec.sweeps.buckets import bucket

DATA = SimpleNamespace(card={"fingerprint": "data"})
LSTM = Config(seed=3, model=Model(cell=Call("lstm"), init="glorot"), optimizer=Optimizer(clip=0.5))


@pytest.mark.parametrize(
    ("config", "run_id", "program"),
    [(Config(), "335749cdf20e-s0", "f0675844c485"), (LSTM, "c88c725afd47-s3", "36593b5f000d")],
)
def test_runs_and_buckets_are_called_as_before_there_were_later_options(config, run_id, program):
    """The hashes are those of the code of 2026-11, before ``optimizer.clip_value`` and ``model.horizon``."""
    found, of = identity(config, DATA, {})
    assert (found, bucket(config)) == (run_id, program)
    assert "clip_value" not in of["optimizer"]
    assert "horizon" not in of["model"]


def test_a_later_option_that_is_given_makes_another_run():
    names = {identity(Config(), DATA, {})[0]}
    for flags in ({"optimizer.clip_value": 0.1}, {"optimizer.clip_value": 0.2}):
        config = resolve(Config, flags=flags).section
        names.add(identity(config, DATA, {})[0])
        assert "optimizer.clip_value: (absent) -> 0." in differing(told(to_dict(Config())), config)
    chrono = {"model.init": "chrono"}
    for horizon in (30, 31):
        names.add(identity(resolve(Config, flags=chrono | {"model.horizon": horizon}).section, DATA, {})[0])
    assert len(names) == 5
    assert "absent" not in differing(told(to_dict(Config())), Config())


def test_later_options_are_options_with_those_defaults():
    plain = to_dict(Config())
    for key, default in LATER:
        *sections, name = key.split(".")
        place = plain
        for section in sections:
            place = place[section]
        assert place[name] == default
