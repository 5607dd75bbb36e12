"""When two preparations are the same: for the tests of every way to prepare."""

from jaxrec.data.prepared import written


def same_arrays(one, other):
    """Every array that is written, what is kept of the raw events among them."""
    before, after = written(one), written(other)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (after[name].dtype, after[name].tolist()) == (array.dtype, array.tolist()), name
    assert (one.known, one.candidates) == (other.known, other.candidates)


def same(one, other):
    """Arrays and card, with the fingerprint; the second may have looked at less for leaks."""
    same_arrays(one, other)
    checked = [{key: value for key, value in found.card.items() if key != "leak_check"} for found in (one, other)]
    assert checked[0] == checked[1]
    assert other.card["leak_check"]["leaks"].items() <= one.card["leak_check"]["leaks"].items()
