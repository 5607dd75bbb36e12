"""Files that the field uses, with the numbers the field publishes for them."""

import gzip

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare


@pytest.fixture
def made(shared_data):
    def make(file, test=None, **options):
        paths = {"data": str(shared_data / file)} | ({"test": str(shared_data / test)} if test else {})
        heard = []
        return prepare(Preparation(**paths, **options), heard.append), "\n".join(heard)

    return make


def sizes(prepared):
    counts = prepared.card["counts"]
    return counts["sequences"], counts["items"], counts["events"]


def test_movielens_100k_is_full_of_ties(made):
    prepared, heard = made("ml-100k/ml-100k.inter.gz")
    assert sizes(prepared) == (943, 1682, 100_000)
    assert prepared.card["name"] == "ml-100k"
    assert round(prepared.card["ties"]["events_tied_share"], 3) == 0.758
    assert round(prepared.card["ties"]["users_tied_last_share"], 3) == 0.440
    assert "ties: 75.8% of events" in heard
    assert "44.0% of users have a tied last event" in heard
    order = np.array(prepared.item_ids.decode(prepared.items))
    tied = (np.diff(prepared.times) == 0) & (np.diff(prepared.sequence_of(np.arange(len(order)))) == 0)
    assert 0.45 < (np.diff(order)[tied] > 0).mean() < 0.55  # no sign of an order by item


def test_movielens_1m_keeps_the_order_of_its_file(made, shared_data):
    prepared, _ = made("ml-1m/ml-1m.txt.gz")
    assert sizes(prepared) == (6040, 3416, 999_611)
    text = gzip.decompress((shared_data / "ml-1m/ml-1m.txt.gz").read_bytes())
    pairs = np.array(text.split(), int).reshape(-1, 2)
    assert prepared.item_ids.decode(prepared.items) == pairs[:, 1].tolist()
    assert prepared.user_ids.decode(prepared.users) == list(dict.fromkeys(pairs[:, 0].tolist()))
    assert len(prepared.targets("test")) == len(prepared.targets("valid")) == 6040


def test_beauty_has_the_published_number_of_users_with_five_events(made):
    users, _ = made("amazon-beauty/Beauty.txt.gz", min_user_events=5)
    assert sizes(users)[0] == 40_226
    both, heard = made("amazon-beauty/Beauty.txt.gz", min_user_events=5, min_item_events=5)
    assert sizes(both) == (40_171, 19_368, 285_290)  # 55 of those users have no event with an item of five
    assert "109,618 events removed" in heard


def test_beauty_2014_is_a_five_core_already(made):
    raw, _ = made("amazon-beauty-2014/interactions.tsv.gz")
    core, _ = made("amazon-beauty-2014/interactions.tsv.gz", k_core=5)
    assert sizes(raw) == sizes(core) == (22_363, 12_101, 198_502)
    assert raw.card["fingerprint"] == core.card["fingerprint"]
    assert raw.card["name"] == "amazon-beauty-2014"


@pytest.mark.parametrize(
    ("folder", "targets", "items"), [("diginetica", 60_858, 43_097), ("yoochoose-1-64", 55_898, 17_745)]
)
def test_sessions_have_the_published_number_of_targets(made, folder, targets, items):
    prepared, _ = made(f"{folder}/train_sessions.txt.gz", f"{folder}/test_sessions.txt.gz")
    assert prepared.card["counts"]["items"] == items
    assert len(prepared.targets("test")) == targets
    assert (prepared.card["sequence"], prepared.card["mask_seen"], prepared.card["name"]) == ("session", "none", folder)
    begin = int(prepared.valid_end[prepared.valid_end < prepared.offsets[1:]][0])  # the first event of the test file
    strangers = np.setdiff1d(prepared.items[begin:], prepared.items[:begin])
    assert len(strangers) == {"diginetica": 0, "yoochoose-1-64": 369}[folder]


def test_music_has_sessions_inside_users(made):
    users, _ = made("30music/sessions.parquet", split="time")
    assert (sizes(users)[0], sizes(users)[2], int(users.starts.sum())) == (14_262, 343_183, 37_877)
    assert users.card["catalogue"] == "train"
    assert users.card["ties"]["events_tied_share"] == 0
    sessions, _ = made("30music/sessions.parquet", sequence="session")
    assert sizes(sessions) == (37_877, 9_999, 343_183)
    assert sessions.card["counts"]["users"] == 14_262


def test_movielens_side_files_are_what_slow_reading_says(made, shared_data):
    """The folder holds the events beside files about items and users; their columns stay with their owners."""
    prepared, _ = made("ml-100k", features=("movie_title", "release_year", "age", "rating", "@hour"))
    assert sizes(prepared) == (943, 1682, 100_000)
    films, people = (
        [
            line.split("\t")
            for line in gzip.decompress((shared_data / f"ml-100k/ml-100k.{of}.gz").read_bytes()).decode().splitlines()
        ]
        for of in ("item", "user")
    )
    titles = {film[0]: film[1] for film in films[1:]}
    title = prepared.features["movie_title"]
    found = [["", *title.ids.strings][code] for code in title.values[1:]]
    assert found == [titles[item] for item in prepared.item_ids.strings]
    ages = {person[0]: float(person[1]) for person in people[1:]}
    assert prepared.features["age"].values[1:].tolist() == [ages[user] for user in prepared.user_ids.strings]
    assert prepared.features["@hour"].values.tolist() == (prepared.times // 3_600_000 % 24).tolist()


def test_likes_are_the_rated_events(made):
    everything, _ = made("ctr-ml-1m/ctr.tsv.gz")
    likes, heard = made("ctr-ml-1m/ctr.tsv.gz", rating_column="label", min_rating=1.0)
    (left_out,) = likes.card["source"]["left_out"].values()
    assert sizes(likes)[2] + left_out == sizes(everything)[2] == 51_623
    assert f"{left_out:,} events left out: label below 1 (--min-rating)" in heard


def test_training_and_test_sessions_are_not_mixed(made):
    with pytest.raises(Mistake, match=r"holds test_sessions\.txt\.gz beside train_sessions\.txt\.gz"):
        made("diginetica")
