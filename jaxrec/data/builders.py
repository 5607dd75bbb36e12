"""TFDS builders that need no TensorFlow: MovieLens from its official archives, and prepared data as sequences.

Both write array_record, keep the order in which examples are made, and hold one person or sequence an example. Lists
are `Tensor(shape=(None,))`: reading `Sequence` features costs several times as much.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import numpy as np
import tensorflow_datasets as tfds

from jaxrec.config import Mistake, first_line
from jaxrec.data.movielens import RELEASES, Release, ratings, verified

Example = tuple[int, dict[str, Any]]
Shards = list[Callable[[], Iterator[Example]]]

SHARD = 1 << 22  # events of a file
CITATION = """@article{harper2015movielens,
  author = {Harper, F. Maxwell and Konstan, Joseph A.},
  title = {The MovieLens Datasets: History and Context},
  journal = {ACM Transactions on Interactive Intelligent Systems}, volume = {5}, number = {4}, year = {2015},
  doi = {10.1145/2827872}}"""


class JaxrecMovielens(tfds.core.ShardBasedBuilder):
    """MovieLens ratings, one example a user, as `tfds.builder("jaxrec_movielens/100k")` once this is imported.

    `row` is a rating's place in the official file: sorting by it restores the file, with its order of tied times. The
    archive is taken from TFDS's manual directory, or downloaded; its published SHA-256 is checked either way.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "One example a user, with the place of every rating."}
    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name=name, description=f"The ratings of {release.archive}.")
        for name, release in RELEASES.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional: put ml-100k.zip, ml-1m.zip, ml-20m.zip or ml-25m.zip here."

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ratings of movies in the order in which the official file lists them.",
            features=tfds.features.FeaturesDict(
                {
                    "user_id": np.int32,
                    "movie_id": many(np.int32),
                    "rating": many(np.float32),
                    "timestamp": many(np.int64),
                    "row": many(np.int64),
                }
            ),
            homepage="https://grouplens.org/datasets/movielens/",
            citation=CITATION,
            metadata=tfds.core.MetadataDict(order="row", archive_sha256=self.release.sha256),
            disable_shuffling=True,
        )

    @property
    def release(self) -> Release:
        return RELEASES[self.builder_config.name]

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Shards]:
        manual = Path(self.data_dir_root) / "downloads" / "manual"
        columns = ratings(verified(archive(dl_manager, self.release, manual), self.release), self.release)
        order = np.argsort(columns["user_id"], kind="stable")
        users = columns["user_id"][order]
        begins = np.flatnonzero(np.diff(users, prepend=users[0] - 1))

        def example(number: int, begin: int, end: int) -> Example:
            row = order[begin:end]
            lists = {name: column[row] for name, column in columns.items() if name != "user_id"}
            return number, {"user_id": users[begin], "row": row, **lists}

        return {"train": shards(np.append(begins, len(users)), example)}


class JaxrecSequences(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Any sequences: `name`, features and metadata as told, and a function that makes the example of each."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        name: str,
        offsets: np.ndarray,
        example: Callable[[int, int, int], Example],
        *,
        features: dict[str, Any],
        metadata: dict[str, Any],
        data_dir: str,
    ):
        self.name, self.offsets, self.example = name, offsets, example
        self.features, self.metadata = features, metadata
        super().__init__(data_dir=data_dir)

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sequences of events prepared by jaxrec; metadata.json holds the protocol card and item ids.",
            features=tfds.features.FeaturesDict(self.features),
            metadata=tfds.core.MetadataDict(self.metadata),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Shards]:
        return {"sequences": shards(self.offsets, self.example)}


def many(kind: Any) -> Any:
    """A list of any length."""
    return tfds.features.Tensor(shape=(None,), dtype=kind)


def shards(offsets: np.ndarray, example: Callable[[int, int, int], Example]) -> Shards:
    """Generators of `example(number, begin, end)` over neighbours, each of about SHARD events."""
    home = offsets[:-1] // SHARD
    cuts = [*np.flatnonzero(np.diff(home, prepend=-1)).tolist(), len(home)]

    def shard(first: int, last: int) -> Iterator[Example]:
        for number in range(first, last):
            yield example(number, int(offsets[number]), int(offsets[number + 1]))

    return [partial(shard, first, last) for first, last in itertools.pairwise(cuts)]


def archive(dl_manager: Any, release: Release, usual: Path) -> Path:
    """The archive in the manual directory (`usual` unless told otherwise), or downloaded; Mistake if neither works."""
    with contextlib.suppress(AssertionError):  # the directory does not exist or is empty
        if (found := Path(dl_manager.manual_dir) / release.archive).is_file():
            return found
    try:
        urlopen(Request(release.url, method="HEAD"), timeout=30).close()  # without this TFDS tries for minutes
        return Path(dl_manager.download(release.url))
    except Exception as error:  # whatever a network, a disk or TFDS's own checksums raise
        reason = first_line(error, type(error).__name__)[:200]
        raise Mistake(
            f"{release.url} cannot be fetched ({reason}); put {release.archive} into {usual}, or name the "
            "folder that it is in with --tfds-manual-dir"
        ) from error


def write(builder: Any, *, manual_dir: str | None = None) -> None:
    """Build as array_record, complete or not at all. Mistake where the directory cannot be written."""
    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir, try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except OSError as error:
        if not builder.is_prepared():  # else another process was faster, with the same contents
            reason = error.strerror or error
            raise Mistake(f"{builder.data_dir} cannot be written: {reason}; choose another directory") from error
