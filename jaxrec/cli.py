"""The command line: parse, call one function, print. Every verb imports what it needs when it runs."""

import contextlib
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxrec.config import (
    Mistake,
    Resolved,
    Section,
    did_you_mean,
    field_types,
    idle,
    resolve,
    value_at,
    watch,
)
from jaxrec.data.options import Preparation, Prepare
from jaxrec.flags import given, parse
from jaxrec.reports.options import Check, Inspect, Listing, Report
from jaxrec.runs.options import Compare, Config, Diagnose, Evaluate, Recommend, Score, Train
from jaxrec.runs.profiles import profile_file
from jaxrec.sweeps.options import Sweep, default, divided, value_of
from jaxrec.training.ending import ended
from jaxrec.training.stop import AGAIN, Interrupted, StopSignal

S = TypeVar("S", bound=Section)

OVERVIEW = """\
jaxrec: recurrent recommenders in JAX

usage: jaxrec VERB [options]          jaxrec VERB --help lists the options

  train      train a model, judge it on the test targets, save it
             jaxrec train --model.cell "gru(hidden=128)" --run runs/a
  launch     train or evaluate with several processes or machines as one
             jaxrec launch -n 2 -- train --data clicks.csv --run runs/a
  evaluate   judge a trained model again, on every test target
             jaxrec evaluate --run runs/a
  sweep      train many configurations: none lost, none repeated; go on later
             jaxrec sweep space.toml --out sweeps/a --trials 40 --workers 2
  diagnose   how far back a cell learns and looks: gradients, horizons, spectra,
             gates, untrained and trained, on one page
             jaxrec diagnose --model.cell lstm --lengths 20,200 --out atlas
  compare    hold runs against the first on the same targets: differences,
             intervals, tests, slices, without running anything again
             jaxrec compare runs/a runs/b
  recommend  the best next items after histories the model never saw
             jaxrec recommend --run runs/a --history "12,7,31" --k 10
  score      the same for millions of histories, into Parquet; goes on later
             jaxrec score --run runs/a --data people.jsonl --out recs
  prepare    turn a file of events into a prepared data set
             jaxrec prepare --data events.csv --out data/events --split time
  inspect    look at a file of events: columns, counts, ties, filters, splits
             jaxrec inspect events.csv --html events.html
  report     write the page of a finished run, sweep or atlas, and say it in one
             sentence
             jaxrec report runs/a
  list       cells, data, losses, metrics or backends
             jaxrec list cells
  check      hold a cell against the laws that every cell obeys
             jaxrec check "my_cell.py:MyCell(hidden=64)"

`jaxrec --version` prints the version. A mistake ends with exit status 2 and one
sentence; JAXREC_TRACEBACK=1 shows where it was found.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status.

    0; 1: a law is broken, or a trial failed; 2: a mistake of the user; 75: stopped by a signal in order, the same
    command goes on from there or does it again; 130: interrupted.
    """
    early = StopSignal(signal.SIGTERM)  # imports take seconds, and a scheduler may change its mind meanwhile
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if verb in ("-h", "--help", "help"):
            print(OVERVIEW, end="")
        elif verb == "--version":
            from importlib.metadata import version

            print(f"jaxrec {version('jaxrec')}")
        elif verb in VERBS:
            with early, early.raising():
                return VERBS[verb](rest)
        else:
            raise Mistake(f"{verb!r} is not a verb{did_you_mean(verb, VERBS) or '; see jaxrec --help'}")
    except BaseException as error:
        return ended(error, _say)
    return 0


def launch(argv: list[str]) -> int:
    from jaxrec.parallel.launch import Launch, launch as run

    here = argv.index("--") if "--" in argv else len(argv)
    words = ["--n" if word == "-n" else word for word in argv[:here]]
    return run(parse(Launch, words, "launch"), argv[here + 1 :], _say)


def train(argv: list[str]) -> int:
    resolved, shown = _resolve_train(argv)
    if shown.print_config:
        from jaxrec.reports.tables import print_config

        print_config(resolved.section, resolved.origins, as_json=shown.json)
        return 0
    from jaxrec.reports.results import print_result
    from jaxrec.runs.run import train as run

    result = run(resolved.section, explicit=resolved.explicit(), command=["jaxrec", "train", *argv], say=_say)
    if result:  # of many processes the first has it
        print_result(result, as_json=shown.json, run=result["run"])
    return 0


def evaluate(argv: list[str]) -> int:
    options = parse(Evaluate, argv, "evaluate")
    from jaxrec.reports.results import print_result
    from jaxrec.runs.run import evaluate as run

    metrics, parquet = options.metrics, options.parquet
    result = run(options.run, metrics=metrics, parquet=parquet, allow_code=options.allow_code, say=_say)
    if result:
        print_result(result, as_json=options.json, run=options.run, slices=options.slices)
    return 0


def sweep(argv: list[str]) -> int:
    words, space = divided(argv)
    options = parse(Sweep, words, "sweep", default=default(words))
    from jaxrec.reports.sweep_summary import print_sweep
    from jaxrec.reports.sweep_watch import watching
    from jaxrec.sweeps.sweep import sweep as run

    with watching(Path(options.out), _say) if options.watch else contextlib.nullcontext(_say) as say:
        said = given(words, Sweep)
        found = run(options, space, command=["jaxrec", "sweep", *argv], said=said, say=say)
    print_sweep(found, as_json=options.json)
    return 1 if found["trials"].get("failed") else 0


def diagnose(argv: list[str]) -> int:
    options = parse(Diagnose, argv, "diagnose")
    from jaxrec.reports.atlas_page import write_atlas
    from jaxrec.reports.atlas_terminal import print_atlas
    from jaxrec.reports.run_examples import read_titles
    from jaxrec.runs.diagnose import diagnose as run

    if options.titles and not Path(options.titles).expanduser().is_file():
        raise Mistake(f"--titles {options.titles} does not exist; give a table with an item's id and its title")
    titles = read_titles(Path(options.titles).expanduser()) if options.titles else {}
    command = ["jaxrec", "diagnose", *argv]
    try:
        records = run(options, explicit=given(argv, Diagnose), command=command, titles=titles, say=_say)
    except Interrupted as sent:  # perhaps inside a compilation, whose threads do not survive an orderly end
        _say(f"jaxrec: {sent}: no file is left half written; the same command does it again")
        sys.stdout.flush()
        os._exit(AGAIN)
    found = write_atlas(records, Path(options.out) / "report.html", command)
    print_atlas(found, as_json=options.json)
    return 0


def compare(argv: list[str]) -> int:
    options = parse(Compare, argv, "compare")
    from jaxrec.reports.comparison import print_comparison
    from jaxrec.runs.compare import compare as run

    rest = {"rounds": options.rounds, "seed": options.seed}
    found = run(options.runs, metrics=options.metrics, split=options.split, **rest)
    print_comparison(found, as_json=options.json)
    return 0


def recommend(argv: list[str]) -> int:
    options = parse(Recommend, argv, "recommend")
    from jaxrec.reports.tables import print_recommendations
    from jaxrec.serving import load
    from jaxrec.serving.histories import asked

    found, exclude_seen = asked(options), options.seen()
    model = load(Path(options.run), allow_code=options.allow_code)
    lists = model.recommend(found.items, k=options.k, exclude_seen=exclude_seen, **found.aside())
    for sentence in model.notes(found.items, found.users):
        _say(f"note: {sentence}")
    print_recommendations(found.items, lists, as_json=options.json)
    return 0


def score(argv: list[str]) -> int:
    options = parse(Score, argv, "score")
    from jaxrec.reports.tables import print_scored

    _refuse_idle_master(options)
    if options.on == "spark":
        from jaxrec.data.spark_session import session

        began = session(options.spark_master)
        from jaxrec.serving.spark import score as on_spark

        found = on_spark(options, began, _say)
    else:
        from jaxrec.serving.scoring import score as run

        found = run(options, _say)
    print_scored(found, options.out, as_json=options.json)
    return 0


def prepare(argv: list[str]) -> int:
    options = parse(Prepare, argv, "prepare")
    from jaxrec.data.export import export
    from jaxrec.data.prepare import prepare as run
    from jaxrec.data.renewing import prepare_into
    from jaxrec.reports.tables import print_card

    _refuse_idle_master(options)
    arrays, out, rest = options.out_format == "arrays", options.out, (options.onto, options.replace)
    if not arrays and any(rest):
        raise Mistake("--onto and --replace are for arrays; drop them, or drop --out-format tfds")
    if options.on == "spark":
        from jaxrec.data.spark_session import preparing

        run = preparing(options)
    with _watched(_as(Preparation, options), argv) as chosen:
        prepared = prepare_into(chosen, out, _say, *rest, make=run) if arrays else run(chosen, _say)
    written = out if arrays else export(prepared, out, _say)
    print_card(prepared.card, str(written), as_json=options.json)
    return 0


def inspect(argv: list[str]) -> int:
    options = parse(Inspect, _without_name(argv, "data"), "inspect")
    from jaxrec.data.inspection import inspect as look
    from jaxrec.reports.inspection import print_inspection
    from jaxrec.reports.inspection_page import write_page

    with _watched(_as(Preparation, options), argv) as chosen:
        found = look(chosen, _say)
    if options.html is not None:
        write_page(found, Path(options.html), ["jaxrec", "inspect", *argv])
    print_inspection(found, as_json=options.json)
    return 0


def report(argv: list[str]) -> int:
    options = parse(Report, _without_name(argv, "run"), "report")
    from jaxrec.reports.sweep_rows import is_sweep, read_sweep

    if is_sweep(options.run):
        from jaxrec.reports.sweep_card import print_sweep, sweep_card
        from jaxrec.sweeps.judging import judgement

        about, rows = read_sweep(options.run)
        shown = sweep_card(options, about, rows, ["jaxrec", "report", *argv], **judgement(about, rows))
        print_sweep(shown, as_json=options.json)
        return 0
    from jaxrec.reports.atlas_records import is_atlas, read_records

    if is_atlas(options.run):
        from jaxrec.reports.atlas_page import write_atlas
        from jaxrec.reports.atlas_terminal import print_atlas

        place = Path(options.run)
        out = Path(options.out) if options.out else place / "report.html"
        shown = write_atlas(read_records(place / "records.jsonl"), out, ["jaxrec", "report", *argv])
        print_atlas(shown, as_json=options.json)
        return 0
    from jaxrec.reports.run_card import card
    from jaxrec.reports.run_page import print_report, write_page

    found = card(options, _say)
    write_page(found, ["jaxrec", "report", *argv])
    print_report(found, as_json=options.json)
    return 0


def list_(argv: list[str]) -> int:
    options = parse(Listing, argv, "list")
    from jaxrec.reports.listing import entries
    from jaxrec.reports.tables import print_backends, print_entries

    if options.cell is None:
        print_entries(options.what, entries(options.what), as_json=options.json)
        return 0
    if options.what != "backends":
        raise Mistake(f"--cell is about backends, not {options.what}; write list backends --cell, or leave it out")
    from jaxrec.recurrence.choice import explain

    print_backends(options.cell, explain(options.cell), as_json=options.json)
    return 0


def check(argv: list[str]) -> int:
    options = parse(Check, argv, "check")
    from jaxrec.recurrence.laws import check as run
    from jaxrec.reports.tables import print_laws, progress

    with progress(sys.stderr) as say:
        results = run(options.cell, say=say)
    print_laws(results, as_json=options.json)
    return 0 if all(result.passed for result in results) else 1


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "launch": launch,
    "evaluate": evaluate,
    "sweep": sweep,
    "diagnose": diagnose,
    "compare": compare,
    "recommend": recommend,
    "score": score,
    "prepare": prepare,
    "inspect": inspect,
    "report": report,
    "list": list_,
    "check": check,
}


def _refuse_idle_master(options: Prepare | Score) -> None:
    if options.spark_master is not None and options.on != "spark":
        raise Mistake("--spark-master does nothing without --on spark; add it, or drop --spark-master")


def _without_name(argv: list[str], key: str) -> list[str]:
    """`--data FILE` is understood where the option is written without its name."""
    return [word.removeprefix(f"--{key}=") for word in argv if word != f"--{key}"]


@contextlib.contextmanager
def _watched(options: Preparation, argv: list[str]) -> Iterator[Preparation]:
    """Work with options, and say which of those that were given it has not read."""
    with watch(options) as seen:
        yield options
    for key in seen.unread(given(argv, Preparation)):
        if value_at(options, key) != value_at(Preparation(), key):
            _say(f"note: {idle(key)}")


def _say(sentence: str) -> None:
    """A line for programs, at most 80 columns where a person watches."""
    if sys.stderr.isatty():
        wide = min(80, shutil.get_terminal_size().columns)
        sentence = textwrap.fill(sentence, wide, break_long_words=False, break_on_hyphens=False)
    print(sentence, file=sys.stderr, flush=True)


def _resolve_train(argv: list[str]) -> tuple[Resolved[Config], Train]:
    """TOML is read first, so that help shows its values; then flags are laid over it by the one rule in `resolve`."""
    toml = Path(file) if (file := value_of(argv, "--config")) else None
    profile = profile_file(name) if (name := value_of(argv, "--profile")) else None
    from_file = resolve(Config, toml, profile=profile).section
    shown = parse(Train, argv, "train", default=Train(**_fields(Config, from_file)))
    flags = {key: value_at(shown, key) for key in given(argv, Config)}
    return resolve(Config, toml, flags, profile), shown


def _fields(cls: type[Section], section: Section) -> dict[str, Any]:
    return {name: value_at(section, name) for name in field_types(cls)}


def _as(cls: type[S], section: Section) -> S:
    """The part of a section that belongs to one of its base classes."""
    return cls(**_fields(cls, section))
