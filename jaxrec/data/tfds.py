"""`tfds:NAME[@SPLIT]`: events from TensorFlow Datasets, read without TensorFlow."""

import contextlib
import hashlib
import importlib.util
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake, did_you_mean, first_line
from jaxrec.data.columns import Choice, choose
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.frames import announce, from_frame
from jaxrec.data.movielens import RELEASES
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import file_sha256
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]

PREFIX = "tfds:"
OURS = {f"movielens-{name}": name for name in RELEASES}
READABLE = {"array_record", "parquet"}
INFO = "dataset_info.json"


@dataclass(frozen=True)
class TfdsSource(Source):
    """What `--data tfds:...` names, in the place of a file: a MovieLens release, a prepared TFDS set or its directory.

    `path` is that text. Nothing is opened before it is asked for.
    """

    data_dir: str | None = None  # None: TFDS_DATA_DIR, else ~/tensorflow_datasets
    manual_dir: str | None = None

    def __post_init__(self) -> None:
        """Nothing is looked at: a name can be judged by TFDS only, and importing that takes seconds."""

    @property
    def words(self) -> str:
        return str(self.path)

    @cached_property
    def asked(self) -> tuple[str, str | None]:
        """Name or directory, and the split where one is named."""
        text = self.words.removeprefix(PREFIX)
        if not text:
            known = ", ".join(map(repr, OURS))
            raise Mistake(f"'{PREFIX}' names no data set; write {PREFIX}NAME ({known}, or one that TFDS has prepared)")
        name, at, split = text.rpartition("@")
        whole = not at or Path(text).expanduser().is_dir()
        return (text, None) if whole else (name, split)

    @cached_property
    def directory(self) -> Path | None:
        """The directory with the data set, where the text names one instead of a data set."""
        name = self.asked[0]
        found = Path(name).expanduser()
        if (found / INFO).is_file():
            return found
        if name.startswith(("/", "~", ".")):
            raise Mistake(f"{found} holds no TFDS data set (no {INFO}); give the directory of a version, as in a/1.0.0")
        return None

    @property
    def release(self) -> str | None:
        """Which MovieLens it is, if any of ours."""
        return OURS.get(self.asked[0])

    @property
    def name(self) -> str:
        """The data's name, for ours the archive's: the same data from another file then has the same name."""
        if self.release is not None:
            return Path(RELEASES[self.release].archive).stem
        name = self.asked[0] if self.directory is None else self.builder.info.full_name.rpartition("/")[0]
        return name.partition(":")[0].replace("/", "-")

    @cached_property
    def sha256(self) -> str:
        """Hash of the official archive, or of the prepared files and the split's name."""
        if self.release is not None:
            return RELEASES[self.release].sha256
        digest = hashlib.sha256(f"{self.split}\n".encode())
        for file in sorted(path for path in Path(self.builder.data_dir).iterdir() if path.is_file()):
            digest.update(f"{file.name} {file_sha256(file)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def builder(self) -> Any:
        """TFDS's own object for the data set, prepared and readable. Mistake where it is neither."""
        need("tensorflow_datasets")
        with quiet():
            found = self._movielens() if self.release is not None else self._prepared()
        formats = {form.value for form in found.info.available_file_formats()}
        if not formats & READABLE:
            raise Mistake(
                f"{self.words} is stored as {', '.join(sorted(formats))} in {found.data_dir}, which only TensorFlow "
                "reads; write it again with file_format='array_record' (tfds convert_format does that)"
            )
        if "parquet" not in formats:
            need("array_record")
        return found

    def _movielens(self) -> Any:
        from jaxrec.data.builders import JaxrecMovielens, write

        need("array_record")
        assert self.release is not None
        archive = RELEASES[self.release].archive
        builder = JaxrecMovielens(config=self.release, data_dir=self.data_dir)
        if not builder.is_prepared():
            if self.manual_dir is not None and not (Path(self.manual_dir) / archive).is_file():
                raise Mistake(f"{self.manual_dir} has no {archive} (--tfds-manual-dir); put the official archive there")
            write(builder, manual_dir=self.manual_dir)
        if builder.info.metadata["archive_sha256"] != self.sha256:
            raise Mistake(f"{builder.data_dir} was made from another {archive}; remove it, and it is made again")
        return builder

    def _prepared(self) -> Any:
        import tensorflow_datasets as tfds

        directory, name = self.directory, self.asked[0]
        try:
            if directory is not None:
                return tfds.builder_from_directory(directory)
            builder = tfds.builder(name, data_dir=self.data_dir)
            prepared = builder.is_prepared()
        except tfds.core.DatasetNotFoundError:
            where = self.data_dir or "TFDS's data directory"
            raise Mistake(f"{where} has no data set {name!r}, and TFDS knows no such{self._hint()}") from None
        except ImportError as error:
            raise Mistake(f"{self.words} needs a package that is not here ({error}); prepare it elsewhere") from error
        except Exception as error:  # a version or configuration that it does not have, files that are not TFDS's
            raise Mistake(
                f"{self.words} cannot be opened: {first_line(error, type(error).__name__)}{self._hint()}"
            ) from error
        if not prepared:
            raise Mistake(
                f"{self.words} is not prepared in {builder.data_dir_root}; make it once with "
                "file_format='array_record' (most of TFDS's own code needs TensorFlow there), or give --tfds-data-dir"
            )
        return builder

    def _hint(self) -> str:
        """What the name may have meant. TFDS's own MovieLens is one of those that TensorFlow alone can make."""
        import tensorflow_datasets as tfds

        name = self.asked[0]
        if name.partition("/")[0] == "movielens":
            return f" without TensorFlow; {', '.join(PREFIX + ours for ours in OURS)} need none"
        known = [*OURS, *tfds.list_builders(with_community_datasets=False)]
        if name.partition(":")[0] in known:
            return "; give a version that it has"
        return did_you_mean(name, known) or "; write tfds:NAME, tfds:NAME/CONFIG or tfds:DIR of a prepared data set"

    @cached_property
    def split(self) -> str:
        """The split that was asked for, or the only one. Mistake where that is unclear or there is no such split."""
        wanted, known = self.asked[1], list(self.builder.info.splits)
        if wanted is None and len(known) == 1:
            return str(known[0])
        if wanted is None:
            raise Mistake(
                f"{self.words} has the splits {', '.join(known)}; name one, as in {self.words}@{known[0]}, or @all"
            )
        try:
            count = self.builder.info.splits[wanted].num_examples
        except Exception as error:  # TFDS raises several kinds
            raise Mistake(
                f"{self.words}: {wanted!r} is not among the splits {', '.join(known)}{did_you_mean(wanted, known)}"
            ) from error
        if not count:
            raise Mistake(f"{self.words} has no examples; name another split among {', '.join(known)}")
        return wanted


def tfds_source(text: str, options: Preparation) -> TfdsSource:
    """The source that `tfds:...` names, with the directories of the options."""
    given = (options.tfds_data_dir, options.tfds_manual_dir)
    return TfdsSource(Path(text), *(None if place is None else os.path.expanduser(place) for place in given))


def read_tfds(source: TfdsSource, options: Preparation, say: Say) -> Events:
    """TensorFlow Datasets, read without TensorFlow: MovieLens from its archives, or any prepared set of interactions.

    An example may be an event, or a sequence of events with columns that are lists of one length.
    """
    if source.release is not None:
        archive = RELEASES[source.release].archive
        say(f"{source.words}: {source.builder.data_dir}, made from the official {archive} (SHA-256 as published)")
    info, split = source.builder.info, source.split
    shapes = {name: tensor.shape for name, tensor in flat(info.features.get_tensor_info())}
    usable = tuple(name for name, shape in shapes.items() if len(shape) <= 1)
    choice = choose(usable, options, source.words)
    form = Format("tfds", f"TFDS {info.full_name}, split {split}, {info.file_format.value}", "the name begins so")
    announce(source.path, form, choice, say)
    names = {f"column_{place}": choice.header[place] for place in choice.places()}
    order = info.metadata.get("order") if isinstance(info.metadata, Mapping) else None
    wanted = names | ({"order": order} if order in shapes else {})
    frame = collected(source, split, wanted)
    if "order" in wanted:
        frame = frame.sort("order").drop("order")
    else:
        if not info.disable_shuffling:
            check_order(source, frame, choice, say)
        frame = frame.drop("example")
    if frame.height == 0:
        raise Mistake(f"{source.words} holds no events; name another split or data set")
    bad = Bad(source.words, options.on_bad_row == "skip")
    rows = Rows(bad, frame.height, lambda row: f": event {row + 1}")
    return from_frame(form, choice, frame, rows, options, say)


def flat(nest: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries, under names with slashes."""
    for name, value in nest.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def collected(source: TfdsSource, split: str, wanted: dict[str, str]) -> "pl.DataFrame":
    """One row an event as the examples are stored, with the number of its example where no column has the order."""
    import polars as pl

    with quiet():
        examples = source.builder.as_data_source(split)
        promised = source.builder.info.splits[split].num_examples
    if len(examples) != promised:  # TFDS 4.9.10 loses examples when it writes parquet
        raise Mistake(f"{source.words} holds {len(examples):,} of its {promised:,} examples; write it as array_record")
    numbered = [] if "order" in wanted else ["example"]
    parts: dict[str, list[np.ndarray]] = {role: [] for role in (*wanted, *numbered)}
    for number, example in enumerate(intact(source, examples)):
        leaves = dict(flat(example))
        row = {role: as_list(leaves[name]) for role, name in wanted.items()}
        lengths = {len(row[role]) for role, name in wanted.items() if np.ndim(leaves[name])} or {1}
        if len(lengths) > 1:
            raise Mistake(
                f"{source.words}: example {number + 1} has lists of {sorted(lengths)} entries; they must agree"
            )
        length = lengths.pop()
        for role, values in {**row, **{name: np.array([number]) for name in numbered}}.items():
            parts[role].append(values if len(values) == length else np.repeat(values, length))
    return pl.DataFrame([series(source, role, np.concatenate(parts.pop(role))) for role in list(parts)])


def intact(source: TfdsSource, examples: Any) -> Iterator[Any]:
    """The examples; a Mistake where a file is damaged."""
    try:
        yield from examples
    except Exception as error:  # array_record, protobuf and pyarrow raise kinds of their own
        raise Mistake(f"{source.words} is damaged: {first_line(error, type(error).__name__)}; make it again") from error


def as_list(value: Any) -> np.ndarray:
    """One cell or a list of them as an array; text stays as it is, where numpy would cut its last zero bytes."""
    return np.array([value], object) if isinstance(value, bytes | str) else np.atleast_1d(value)


def series(source: TfdsSource, role: str, values: np.ndarray) -> "pl.Series":
    """A column of numbers or text."""
    import polars as pl

    if values.dtype.kind not in "SO":
        return pl.Series(role, values)
    try:
        return pl.Series(role, [value.decode() if isinstance(value, bytes) else value for value in values])
    except UnicodeDecodeError as error:
        raise Mistake(f"{source.words}: the {role} {error.object!r} is not UTF-8; write text or numbers") from error


def check_order(source: TfdsSource, frame: "pl.DataFrame", choice: Choice, say: Say) -> None:
    """What it means that TFDS stores examples in the order of a hash: a note with times, a Mistake without."""
    if "time" in choice.position:
        say(f"{source.words}: TFDS stored the examples shuffled: tied events are in that order, not in the source's")
        return
    person = "user" if "user" in choice.position else "session"
    whose = f"column_{choice.position[person]}"
    if frame.select(whose, "example").unique().height > frame[whose].n_unique():
        raise Mistake(
            f"{source.words} has its examples shuffled by TFDS and no column known to be the time, so the order of a "
            f"{person}'s events is lost; add --time-column NAME"
        )


def need(package: str) -> None:
    """Mistake when a package is not installed; tensorflow-datasets brings array_record on Linux only."""
    if importlib.util.find_spec(package) is None:
        raise Mistake(f"this needs {package.replace('_', '-')}, which is not installed; pip install it")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TFDS prints on standard output, which belongs to results, and its progress bars and notes would cut our lines."""
    import tensorflow_datasets as tfds
    from absl import logging

    tfds.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
