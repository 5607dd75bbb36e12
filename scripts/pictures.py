"""Make the pictures of README.md, none by hand: `python scripts/pictures.py FILE RUN OTHER [--titles FILE]
[--sweep DIR] [--atlas PAGE]`, or with `--sweep DIR` or `--atlas PAGE` alone.

FILE is a file of events, RUN and OTHER are folders of finished runs; the pages are written as `jaxrec inspect` and
`jaxrec report RUN` write them, the terminal shows what `jaxrec compare RUN OTHER` prints, and a headless browser
(Chromium or Chrome, on the PATH or named by --browser) takes a picture of the top of each, of the run's also in the
dark. Without a browser nothing changes and the exit status is 1.

Pictures lie in experiments/results beside the rows, each under 200 kB.
"""

import argparse
import contextlib
import html
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxrec.data.inspection import inspect
from jaxrec.data.options import Preparation
from jaxrec.reports.comparison import print_comparison
from jaxrec.reports.html import write
from jaxrec.reports.inspection_page import inspection_page
from jaxrec.reports.options import Report
from jaxrec.reports.run_card import card
from jaxrec.reports.run_page import run_page
from jaxrec.runs.compare import compare

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {  # of the window
    "inspect": (1060, 2390),
    "report": (1060, 1330),
    "compare": (720, 700),
    "recurrence": (1060, 1330),
    "catalogue": (1060, 520),
    "sweep": (1060, 1990),
    "atlas": (1230, 1750),
}
SCALE = {"inspect": 0.7, "report": 1, "compare": 1, "recurrence": 0.8, "catalogue": 0.9, "sweep": 0.62, "atlas": 0.6}
# which are taken, dark or not
THEMES = {"report": (False, True), "atlas": (False, True), "compare": (True,)} | dict.fromkeys(
    ("inspect", "recurrence", "catalogue", "sweep"), (False,)
)
TERMINAL = """<!doctype html><meta charset="utf-8"><style>body { margin: 0; background: #16181d; color: #d8dbe0 }
pre { font: 13px/1.35 "DejaVu Sans Mono", monospace; padding: 1em }</style><pre>"""
LARGEST = 200_000  # bytes of a picture


def browser_of(named: str | None) -> str | None:
    """The browser that was named, or the first on the PATH; without one, says so."""
    browser = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no browser was found ({', '.join(BROWSERS)}); install one or name it with --browser", file=sys.stderr)
    return browser


def picture(browser: str, page: str, name: str, dark: bool) -> Path:
    """A picture of the top of a page."""
    target = RESULTS / f"{name}{'-dark' if dark and False in THEMES[name] else ''}.png"
    width, height = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        file, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        file.write_text(page, encoding="utf-8")
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--window-size={width},{height}",
                f"--force-device-scale-factor={SCALE[name]}",
                f"--screenshot={shot}", file.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        if shot.stat().st_size > LARGEST:
            raise SystemExit(f"{name} has {shot.stat().st_size:,} bytes, more than {LARGEST:,}; make SIZES smaller")
        shutil.copyfile(shot, target)
    return target


def page_of_rows(told: str | None, name: str, made: Callable[[Path], str]) -> int:
    """The command line of a page about an experiment's rows: writes what ``made`` makes of their file, and takes its
    picture where that is asked for. ``told`` is the docstring of the script; returns the exit status.
    """
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=RESULTS / f"bench_{name}.jsonl", help="file of rows")
    parser.add_argument("--out", type=Path, default=Path(f"{name}.html"), help="page to write")
    parser.add_argument("--picture", action="store_true", help=f"also experiments/results/{name}.png")
    parser.add_argument("--browser", help="program that takes it")
    options = parser.parse_args()
    page = made(options.rows)
    write(options.out, page)
    print(options.out)
    if options.picture:
        if (browser := browser_of(options.browser)) is None:
            return 1
        print(picture(browser, page, name, dark=False))
    return 0


def terminal(runs: list[str]) -> str:
    """What `jaxrec compare` prints in eighty columns, as a page."""
    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_comparison(compare(runs), as_json=False)
    names = " ".join(f"runs/{Path(run).name}" for run in runs)
    return f"{TERMINAL}$ jaxrec compare {names}\n{html.escape(printed.getvalue())}</pre>"


def pages_of(options: argparse.Namespace) -> dict[str, str]:
    """What is made from a file of events and two runs."""
    found = inspect(Preparation(data=options.file))
    shown = found | {"read": [told.replace(options.file, Path(options.file).name) for told in found["read"]]}
    run = card(Report(run=options.run, titles=options.titles))
    return {
        "inspect": inspection_page(shown, f"jaxrec inspect {Path(options.file).name} --html page.html"),
        "report": run_page(run, f"jaxrec report {Path(options.run).name}"),
        "compare": terminal([options.run, options.other]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="file of events")
    parser.add_argument("run", nargs="?", help="folder of a finished run")
    parser.add_argument("other", nargs="?", help="folder of another one on the same data")
    parser.add_argument("--titles", help="table with an item's id and its title")
    parser.add_argument("--sweep", help="folder of a sweep, whose page `jaxrec report` has written")
    parser.add_argument("--atlas", help="page of an atlas, as `python experiments/atlas.py --page FILE` writes it")
    parser.add_argument("--browser", help="program that takes the pictures")
    options = parser.parse_args()
    if (browser := browser_of(options.browser)) is None:
        return 1
    if not (options.other or options.sweep or options.atlas):
        parser.error("give FILE RUN OTHER, --sweep DIR, --atlas PAGE, or all of them")
    pages = pages_of(options) if options.other else {}
    if options.sweep:
        pages["sweep"] = (Path(options.sweep) / "report.html").read_text(encoding="utf-8")
    if options.atlas:
        pages["atlas"] = Path(options.atlas).read_text(encoding="utf-8")
    for name, page in pages.items():
        for dark in THEMES[name]:
            print(picture(browser, page, name, dark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
