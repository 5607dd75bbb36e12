"""What a preparation may be told: one field per decision, each with a default that looks at the file."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from jaxrec.config import Mistake, Section, Within, field_types, keys, value_at
from jaxrec.data.demo import Demo


@dataclass(frozen=True, kw_only=True)
class Preparation(Section):
    """From a file of events (or the built-in generator) to sequences with a split and a protocol card."""

    data: str = "demo"
    """file of events, directory or pattern of them ('logs/*.parquet'), prepared directory, tfds:NAME, or 'demo'"""
    test: str | None = None
    """file of test events (split given)"""
    valid: str | None = None
    """file of validation events (split given); without it the last training sequences, see held-out"""
    held_out: Annotated[float, Within(0.0, 1.0, above=True)] = 0.1
    """share of the training sequences, the last in the file, that validate where no file is given for it"""
    user_column: str | None = None
    """name of the column with the user, or its position (1 is the first); guessed when absent"""
    item_column: str | None = None
    """name of the column with the item"""
    time_column: str | None = None
    """name of the column with the time (numbers or ISO text)"""
    session_column: str | None = None
    """name of the column with the session"""
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    """times since 1970 in this unit, or ISO text; auto decides by the values and refuses absurd ones"""
    features: tuple[str, ...] = ()
    """further columns to keep, of the events or of a .item or .user file beside them; @hour, @weekday from times"""
    rating_column: str | None = None
    """name of the column that --min-rating looks at"""
    min_rating: float | None = None
    """leave out events rated lower"""
    event_column: str | None = None
    """name of the column with the kind of event, such as view or buy"""
    event_weights: tuple[str, ...] = ()
    """weight of each kind of event, as in view=1 cart=3 buy=5; 0 leaves it out, and every kind needs one"""
    on_bad_row: Literal["error", "skip"] = "error"
    """a row that breaks a rule: stop and name it, or leave it out and count it"""
    sequence: Literal["auto", "user", "session"] = "auto"
    """what one sequence is; auto: a user where there are users, else a session"""
    k_core: Annotated[int, Within(0)] = 0
    """drop users and items with fewer events, again and again until none is left to drop; 0 = off"""
    min_user_events: Annotated[int, Within(0)] = 0
    """drop users with fewer events, counted once on the raw file"""
    min_item_events: Annotated[int, Within(0)] = 0
    """drop items with fewer events, counted once on the raw file"""
    session_gap: Annotated[float, Within(0.0, 1e9)] = 0.0
    """minutes: a longer pause between two events of a user begins a session; sequences are then sessions; 0 = off"""
    deduplicate: Literal["none", "exact", "first", "last"] = "none"
    """exact: one of the events with equal user, item and time; first, last: one event of a user and an item"""
    collapse_repeats: bool = False
    """keep only the first of consecutive events of one item in a sequence"""
    filter_scope: Literal["all", "train"] = "all"
    """what the counts of k-core and min-*-events look at, and drop: all events, or those of training alone"""
    ties: str = "file"
    """order of a sequence's events of one time: 'file' keeps that of the file, 'shuffle' draws one"""
    ties_seed: Annotated[int, Within(0)] = 0
    """seed of the drawn order (ties shuffle)"""
    split: Literal["auto", "leave-one-out", "last-n", "time", "given"] = "auto"
    """auto: given when there is a test file, else leave-one-out"""
    last: Annotated[int, Within(1)] = 1
    """events of a sequence that test, and as many before them that validate (split last-n)"""
    boundaries: tuple[str, str] = ("0.8", "0.9")
    """where validation and test begin (split time): quantiles of event time or ISO dates"""
    catalogue: Literal["auto", "all", "train"] = "auto"
    """which items can be recommended; auto: train for split time, else all"""
    unknown_targets: Literal["miss", "drop"] = "miss"
    """targets that never occur in training: counted as missed, or not evaluated"""
    mask_seen: Literal["auto", "none", "history", "history_except_target"] = "auto"
    """items that cannot be recommended; auto: history for users, none for sessions"""
    tfds_data_dir: str | None = None
    """directory of TFDS data sets, for tfds:NAME; none is TFDS_DATA_DIR, else ~/tensorflow_datasets"""
    tfds_manual_dir: str | None = None
    """directory with a MovieLens archive such as ml-100k.zip; none looks in downloads/manual, then downloads it"""
    verify: bool = False
    """compare every byte of prepared data with the hash it was written with; sizes always are"""
    demo: Demo = field(default_factory=Demo)
    """the generator behind data = demo"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ties not in TIES:
            raise Mistake(
                f"ties = {self.ties!r} is refused; use file or shuffle, because ties ordered by anything that depends "
                "on the item, such as its id, are a pattern that a sequence model learns and nobody's behaviour"
            )


@dataclass(frozen=True, kw_only=True)
class Prepare(Preparation):
    """Turn a file of events into a prepared data set with a protocol card."""

    out: str
    """directory to write; nothing is written where it holds the same already"""
    onto: str | None = None
    """prepared directory that the events of --data are added to, with its options: as if all were prepared together"""
    replace: bool = False
    """put the new data in the place of what --out holds, once it is complete; otherwise other data there is refused"""
    out_format: Literal["arrays", "tfds"] = "arrays"
    """arrays: npy files to map and train from; tfds: a TFDS data set (array_record) in the data directory `out`"""
    on: Literal["here", "spark"] = "here"
    """where rows are filtered and sorted: in this process, or by Spark, for logs larger than one machine"""
    spark_master: str | None = None
    """Spark's master, as in local[4] or spark://host:7077; none is spark-submit's, else every core of this machine"""
    json: bool = False
    """print the protocol card as JSON"""


TIES = ("file", "shuffle")
COLUMN_FIELDS = (
    *("user_column", "item_column", "time_column", "session_column", "time_unit", "features", "rating_column"),
    *("min_rating", "event_column", "event_weights", "on_bad_row"),
)
PLACES = ("data", "verify", "tfds_data_dir", "tfds_manual_dir")
FILTERS = ("session_gap", "deduplicate", "collapse_repeats", "min_user_events", "min_item_events", "k_core")
ALWAYS = ("sequence", *FILTERS, "filter_scope", "ties", "catalogue", "unknown_targets", "mask_seen")


def split_kind(options: Preparation) -> str:
    """The split that will be made: 'leave-one-out', 'last-n', 'time' or 'given'."""
    if options.split != "auto":
        return options.split
    return "given" if options.test is not None else "leave-one-out"


def asked(options: Preparation) -> dict[str, Any]:
    """The options that are not at their default, by dotted key, as JSON has them; those that say where data lies and
    how it is loaded left out.
    """
    default, found = Preparation(), {}
    for key in keys(Preparation):
        value = value_at(options, key)
        if value != value_at(default, key) and key not in PLACES:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def effective(options: Preparation) -> dict[str, Any]:
    """The options that decide the result, and only those: the identity of a preparation, without its paths."""
    kind = split_kind(options)
    chosen: dict[str, Any] = {"split": kind} | {name: getattr(options, name) for name in ALWAYS}
    if kind == "time":
        chosen["boundaries"] = list(options.boundaries)
    if kind == "last-n":
        chosen["last"] = options.last
    if options.ties == "shuffle":
        chosen["ties_seed"] = options.ties_seed
    if kind == "given" and options.valid is None:
        chosen["held_out"] = options.held_out
    if options.data == "demo":
        chosen["features"] = list(options.features)
        chosen["demo"] = {name: getattr(options.demo, name) for name in field_types(Demo)}
    else:
        given = {name: getattr(options, name) for name in COLUMN_FIELDS}
        chosen |= {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return chosen
