"""MovieLens from its official archives, through TFDS without TensorFlow."""

import csv
import dataclasses
import gzip
import hashlib
import http.server
import importlib.resources
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data import movielens
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare

tfds = pytest.importorskip("tensorflow_datasets")

# How the official files write a rating.
LAYOUT = {
    "100k": "{}\t{}\t{:.0f}\t{}\n",
    "1m": "{}::{}::{:.0f}::{}\n",
    "20m": "{},{},{:.1f},{}\n",
    "25m": "{},{},{:.1f},{}\n",
}
RELEASES = sorted(LAYOUT)


def silent(_):
    """A listener that does not listen."""


def many_ties(users=23, items=40, events=400, seed=0):
    """Rows of (user, movie, rating, seconds), users mixed, most times shared by several events of a user."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(1, users + 1, events), rng.integers(1, items + 1, events)
    rating, time = rng.integers(1, 6, events), 880_000_000 + 60 * rng.integers(0, 9, events)
    return [tuple(map(int, row)) for row in zip(user, item, rating, time, strict=True)]


def write_archive(folder, name, rows, monkeypatch):
    """An archive in the true layout; its hash takes the place of the published one."""
    release = movielens.RELEASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    text = "userId,movieId,rating,timestamp\n" if release.header else ""
    text += "".join(LAYOUT[name].format(*row) for row in rows)
    with zipfile.ZipFile(folder / release.archive, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(str(Path(release.member).parent / "README"), "terms of use\n")
        archive.writestr(release.member, text)
    sha256 = hashlib.sha256((folder / release.archive).read_bytes()).hexdigest()
    monkeypatch.setitem(movielens.RELEASES, name, dataclasses.replace(release, sha256=sha256))
    return folder


def options(folder, data, **more):
    return Preparation(data=data, tfds_data_dir=str(folder / "tfds"), **more)


def from_csv(folder, rows, **more):
    """The oracle: the same rows in the same order, read from a CSV."""
    path, header = folder / "oracle.csv", ("user", "item", *["rating"] * (len(rows[0]) > 3), "time")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return prepare(Preparation(data=str(path), **more), silent)


def test_the_published_hashes_are_those_that_tfds_ships():
    table = importlib.resources.files("tensorflow_datasets") / "url_checksums" / "movielens.txt"
    published = {line.split()[0]: line.split()[2] for line in table.read_text().splitlines()}
    for release in movielens.RELEASES.values():
        assert published[release.url] == release.sha256


@pytest.mark.parametrize("name", RELEASES)
def test_an_archive_is_its_rows_in_their_order(tmp_path, monkeypatch, name):
    rows = many_ties()
    manual = write_archive(tmp_path / "manual", name, rows, monkeypatch)
    heard = []
    made = prepare(options(tmp_path, f"tfds:movielens-{name}", tfds_manual_dir=str(manual)), heard.append)
    expected = from_csv(tmp_path, rows)
    assert made.card["fingerprint"] == expected.card["fingerprint"]
    assert made.card["ties"]["events_tied_share"] > 0.5
    assert from_csv(tmp_path, sorted(rows)).card["fingerprint"] != expected.card["fingerprint"]
    assert made.card["name"] == f"ml-{name}"
    assert made.card["source"]["sha256"] == [movielens.RELEASES[name].sha256]
    assert any("SHA-256 as published" in line for line in heard)


@pytest.mark.parametrize(("name", "step"), [("1m", 1), ("20m", 0.5)])
def test_the_data_set_holds_every_rating_at_its_place(tmp_path, monkeypatch, name, step):
    rows = [(user, item, rating * step, time) for user, item, rating, time in many_ties()]
    manual = write_archive(tmp_path / "manual", name, rows, monkeypatch)
    prepare(options(tmp_path, f"tfds:movielens-{name}", tfds_manual_dir=str(manual)), silent)
    source = tfds.data_source(f"jaxrec_movielens/{name}", data_dir=tmp_path / "tfds", split="train")
    assert len(source) == len({row[0] for row in rows})
    found = {}
    for example in source:
        lists = zip(*(example[name].tolist() for name in ("row", "movie_id", "rating", "timestamp")), strict=True)
        found |= {row: (int(example["user_id"]), *rest) for row, *rest in lists}
    assert [found[row] for row in range(len(rows))] == rows


def test_pieces_of_a_large_file_are_joined_without_a_seam(tmp_path, monkeypatch):
    rows = many_ties(events=50)
    manual = write_archive(tmp_path, "1m", rows, monkeypatch)
    release = movielens.RELEASES["1m"]
    whole = movielens.ratings(manual / release.archive, release)
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(movielens, "BLOCK", size)
        pieces = movielens.ratings(manual / release.archive, release)
        assert all(np.array_equal(whole[column], pieces[column]) for column in movielens.COLUMNS)
    assert list(zip(*(whole[column].tolist() for column in movielens.COLUMNS), strict=True)) == rows


@pytest.mark.parametrize("bad", ["1::2::3", "1::2::3::4::5", "1::x::3::4", "1::2::::4", ""])
@pytest.mark.parametrize("size", [16, 1 << 20])
def test_a_line_that_is_no_rating_is_named(tmp_path, monkeypatch, bad, size):
    monkeypatch.setattr(movielens, "BLOCK", size)
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "1::2::3::4\n1::3::5::9\n" + bad + "\n7::8::1::2\n")
    with pytest.raises(Mistake, match=r"ml-1m/ratings.dat:3: .* is not user, movie, rating and time separated by '::'"):
        movielens.ratings(path, movielens.RELEASES["1m"])


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    manual = write_archive(tmp_path / "manual", "100k", many_ties(), monkeypatch)
    (manual / "ml-100k.zip").write_bytes((manual / "ml-100k.zip").read_bytes() + b"\0")
    with pytest.raises(
        Mistake, match=r"ml-100k.zip is not the published ml-100k.zip: its SHA-256 is \w{64}, not \w{64}"
    ):
        prepare(options(tmp_path, "tfds:movielens-100k", tfds_manual_dir=str(manual)), silent)
    assert not list((tmp_path / "tfds").rglob("*array_record*"))


def test_without_a_network_it_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "HOME", "http://127.0.0.1:9/")
    with pytest.raises(Mistake) as caught:
        prepare(options(tmp_path, "tfds:movielens-1m"), silent)
    assert "http://127.0.0.1:9/ml-1m.zip cannot be fetched" in str(caught.value)
    assert f"put ml-1m.zip into {tmp_path}/tfds/downloads/manual, or" in str(caught.value)
    assert "--tfds-manual-dir" in str(caught.value)
    rows = many_ties()
    write_archive(tmp_path / "tfds/downloads/manual", "1m", rows, monkeypatch)  # as it said
    made = prepare(options(tmp_path, "tfds:movielens-1m"), silent)
    assert made.card["fingerprint"] == from_csv(tmp_path, rows).card["fingerprint"]


def test_a_data_set_made_from_another_archive_is_refused(tmp_path, monkeypatch):
    manual = str(write_archive(tmp_path / "manual", "100k", many_ties(seed=1), monkeypatch))
    prepare(options(tmp_path, "tfds:movielens-100k", tfds_manual_dir=manual), silent)
    write_archive(tmp_path / "manual", "100k", many_ties(seed=2), monkeypatch)
    with pytest.raises(Mistake, match=r"was made from another ml-100k.zip; remove it"):
        prepare(options(tmp_path, "tfds:movielens-100k", tfds_manual_dir=manual), silent)


def test_a_directory_that_cannot_be_written_is_a_mistake(tmp_path, monkeypatch):
    manual = write_archive(tmp_path / "manual", "100k", many_ties(), monkeypatch)
    (tmp_path / "tfds").write_text("a file in the place of the directory")
    with pytest.raises(Mistake, match="cannot be written"):
        prepare(options(tmp_path, "tfds:movielens-100k", tfds_manual_dir=str(manual)), silent)


def test_a_manual_directory_without_the_archive_is_a_mistake_not_a_download(tmp_path):
    with pytest.raises(Mistake, match=r"has no ml-20m.zip \(--tfds-manual-dir\)"):
        prepare(options(tmp_path, "tfds:movielens-20m", tfds_manual_dir=str(tmp_path)), silent)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


def test_it_is_downloaded_once(tmp_path, monkeypatch):
    rows = many_ties()
    served = write_archive(tmp_path / "served", "100k", rows, monkeypatch)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(movielens, "HOME", f"http://127.0.0.1:{server.server_port}/")
    try:
        first = prepare(options(tmp_path, "tfds:movielens-100k"), silent)
    finally:
        server.shutdown()
        server.server_close()
    again = prepare(options(tmp_path, "tfds:movielens-100k"), silent)
    expected = from_csv(tmp_path, rows).card["fingerprint"]
    assert first.card["fingerprint"] == again.card["fingerprint"] == expected


def test_the_builder_gives_the_events_of_the_recbole_file(shared_data, tmp_path, monkeypatch):
    file = shared_data / "ml-100k" / "ml-100k.inter.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()[1:]
    rows = [tuple(int(float(field)) for field in line.split("\t")) for line in lines]
    manual = write_archive(tmp_path / "manual", "100k", rows, monkeypatch)
    made = prepare(options(tmp_path, "tfds:movielens-100k", tfds_manual_dir=str(manual)), silent)
    expected = prepare(Preparation(data=str(file)), silent)
    assert made.card["fingerprint"] == expected.card["fingerprint"]
    assert round(made.card["ties"]["users_tied_last_share"], 3) == 0.440
