"""A sweep: it proposes trials, keeps workers at them, and goes on where it was."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, from_dict
from jaxrec.runs.folder import Folder, mendable, read_json, write_json
from jaxrec.runs.options import Config
from jaxrec.sweeps.crew import Crew
from jaxrec.sweeps.defining import definition
from jaxrec.sweeps.folder import Place
from jaxrec.sweeps.hiring import hired, refuse
from jaxrec.sweeps.ledger import RUNNING, Ledger, New
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.pasts import Pasts
from jaxrec.sweeps.proposals import Proposals
from jaxrec.sweeps.rebuilding import rebuilt
from jaxrec.sweeps.rehearsal import rehearse
from jaxrec.sweeps.rows import Table
from jaxrec.sweeps.search import Past
from jaxrec.sweeps.summary import leader, progress, summary
from jaxrec.sweeps.team import Team
from jaxrec.sweeps.tracking import Tracking
from jaxrec.sweeps.worker import DISK
from jaxrec.training.stop import AGAIN, Stopped, StopSignal

AHEAD, AT_ONCE = 512, 64  # trials that wait, and that are added at a time, where none depends on what is to come
LOOK, TABLE, TELL = 0.1, 3.0, 10.0  # seconds between looks, tables, and words
Say = Callable[[str], None]


def sweep(
    options: Sweep, given: Mapping[str, Any], *, command: Sequence[str], said: Collection[str] = (), say: Say = print
) -> dict[str, Any]:
    """Train what is missing of a sweep; returns what there is to say of it.

    Options named in ``said`` count as asked for even where they have their default: a sweep that goes on takes the
    others from before. Raises `Stopped` after a signal, with every worker gone in order, and `Mistake` for what the
    user can mend.
    """
    refuse(options)
    place, stop = Place(Path(options.out)), StopSignal()
    with stop, place.claimed(), mendable(place.out):
        ledger = opened(place, options, say)
        about = ledger.agreed(definition(options, given, ledger.about, command, say, said))
        with Tracking(options.track, place.out, about, stop, say) as tracking:
            return Coordinator(place, ledger, about, options, stop, say, tracking).run()


def opened(place: Place, options: Sweep, say: Say) -> Ledger:
    """The ledger, every page of it read. `Mistake` where it is damaged or has vanished."""
    if options.rebuild:
        return rebuilt(place, say)
    vanished = place.about.exists() and not (place.ledger.exists() and place.ledger.stat().st_size)
    if not vanished:
        ledger = Ledger(place.ledger)
        ledger.check()
    if vanished or (ledger.about is None and place.about.exists()):
        raise Mistake(f"{place.ledger} is empty; the same command with --rebuild makes it anew from the run folders")
    return ledger


class Coordinator:
    """The process that a person started: only it proposes."""

    def __init__(
        self, place: Place, ledger: Ledger, about: dict[str, Any], options: Sweep, stop: StopSignal, say: Say,
        tracking: Tracking,
    ):  # fmt: skip
        self.place, self.ledger, self.about, self.options, self.tracking = place, ledger, about, options, tracking
        self.stop, self.say, self.total, self.seeds = stop, say, about["trials"], about["seeds"]
        self.proposals = Proposals(about, say, lambda number: str(place.runs / ledger.id(number)))
        self.pasts, self.table = Pasts(about["objectives"]), Table(place.table)
        self.began = time.monotonic()
        self.next = ledger.next_number()
        self.first = not self.next
        self.gaps = ledger.missing(self.next)
        self.crew: Team = Crew(place.out, [])
        self.written = self.counted = self.cost = 0.0
        self.told, self.why = self.began, ""

    def run(self) -> dict[str, Any]:
        """Until nothing is missing, a budget is spent, or a signal comes."""
        self.unchanged()
        if self.first:
            rehearse(self.proposals.space)
        self.begin()
        self.propose()
        if self.missing():
            self.crew, who = self.hired()
            self.say(f"{self.place.out}: {progress(self.ledger, self.total)}; {who}")
            self.train()
        self.write(now=True)
        self.pasts.look(self.ledger)
        if self.proposals.over and self.total is not None and self.next < self.total:
            many = "1 trial" if self.next == 1 else f"{self.next} trials"
            self.say(f"note: this space holds {many}, and {self.total} were asked for; there are no more")
        return summary(self.ledger, self.pasts, self.about, self.place.out, self.why)

    def hired(self) -> tuple[Team, str]:
        """The workers. A sweep for which nobody can work when it begins has not begun."""
        try:
            return hired(self.place.out, self.options)
        except Mistake:
            if self.first:
                self.place.about.unlink()
            raise

    def begin(self) -> None:
        """Write down what is swept, now that nothing speaks against it."""
        self.ledger.begin(self.about)
        write_json(self.place.about, self.about)
        told = {name: getattr(self.options, name) for name in ("retries", "lease_seconds", "together")}
        self.session = self.ledger.start(told)
        self.ledger.reclaim()

    def train(self) -> None:
        try:
            while self.missing() and not self.stop.requested and not self.spent():
                self.tend()
                self.propose()
                self.write()
                if not self.options.watch:
                    self.tell()
                time.sleep(LOOK)
        finally:
            self.stop.heard()
            self.crew.stop()
            self.settle(stopped=True)
            self.ledger.reclaim()
            self.ledger.last(self.session, time.monotonic() - self.began)
            self.write(now=True)
        if self.stop.requested:
            far = progress(self.ledger, self.total)
            raise Stopped(f"{self.stop.requested}: {far}; what ran is saved, and the same command goes on from there")

    def missing(self) -> bool:
        """Whether trials are at work, wait, or are still to be proposed."""
        self.count()
        return bool(self.waiting or self.running or self.unproposed())

    def count(self) -> None:
        counts = self.ledger.counts()
        self.waiting, self.running = counts.get("waiting", 0), counts.get("running", 0)

    def unchanged(self) -> None:
        """`Mistake` where the data or a cell's file is no more what the first trial was made with."""
        for number, run_id, plain in self.ledger.first():
            config = from_dict(Config, plain, f"trial {number}")
            now, of = self.proposals.identified(config)
            if now != run_id:
                what = changed_since(Folder(self.place.runs / run_id), of, config)
                raise Mistake(
                    f"{what} since this sweep began (trial {number} was {run_id} and would be {now}); restore it, or "
                    "choose another --out"
                )

    # proposing

    def unproposed(self) -> bool:
        return bool(self.gaps) or (not self.proposals.over and (self.total is None or self.next < self.total))

    def room(self) -> int:
        """How many more trials should wait: few where the next one depends on what comes out."""
        if self.proposals.adaptive:
            if not self.proposals.ready(self.gaps[0] if self.gaps else self.next, self.past):
                return 0
            return max(1, len(self.crew.posts)) * self.options.together - self.running - self.waiting
        return 0 if self.waiting > AHEAD // 2 else min(AT_ONCE, AHEAD - self.waiting)

    def past(self) -> list[Past]:
        """The trials as they are now."""
        self.pasts.look(self.ledger)
        return self.pasts.trials()

    def propose(self) -> None:
        """Let trials wait, as many as there is room for."""
        self.count()
        while self.unproposed() and not self.stop.requested and (room := self.room()) > 0:
            batch: list[New] = []
            while len(batch) < (1 if self.proposals.adaptive else room) and self.unproposed():
                batch += self.configuration()
            self.ledger.add(batch)
            self.count()

    def configuration(self) -> list[New]:
        """The trials of the next configuration, those that a rebuilt ledger lacks first."""
        past = []
        if self.proposals.adaptive:
            self.pasts.look(self.ledger)
            past = self.pasts.configurations(self.seeds)
        gap = self.gaps[0] if self.gaps else None
        first = self.next if gap is None else gap - gap % self.seeds
        found = self.proposals.configuration(first, past)
        self.gaps = [number for number in self.gaps if number >= first + self.seeds] if found else []
        self.next = max(self.next, first + len(found))
        return found

    # workers

    def tend(self) -> None:
        """Settle what ended workers leave, take back what is not kept alive, fill empty places."""
        self.settle()
        if self.ledger.reclaim(self.crew.children):
            self.crew.kill(lambda name, pid: bool(self.ledger.taken(name, pid)))
        self.count()
        aside = {*self.ledger.quarantined(), *(post.name for post in self.crew.posts if post.failed >= RUNNING)}
        if self.waiting and not self.crew.working and len(aside) == len(self.crew.posts):
            said = last(self.crew.posts[0].log)
            raise Mistake(
                f"every worker failed {RUNNING} times running and was put aside ({said}); look into "
                f"{self.place.out / 'workers'}, and the same command tries again"
            )
        self.crew.fill(-(-(self.waiting + self.running) // self.options.together), aside)

    def settle(self, stopped: bool = False) -> None:
        """Write down what ended workers held. Those that were ``stopped`` have not failed, whatever they say."""
        for post, pid, status, said, log in self.crew.ended():
            failed = status not in (0, AGAIN, DISK, None) and not stopped
            state, signature = ("failed", said) if failed else ("waiting", "")
            for place, attempt in enumerate(self.ledger.held(post.name, pid)):
                reason = said if status is None else f"the process ended with {said}"
                self.ledger.end(attempt, state, reason=reason, signature=signature, counts=place == 0, log=log)
            if self.ledger.began(post.name, pid):
                post.failed = 0  # what it did the ledger counts
            if status in (2, DISK) and not stopped:
                raise Mistake(last(log).removeprefix("jaxrec: "))
            if status is None and not stopped:
                self.say(f"{post.name}: {said}; what it had waits for another")
            if failed:
                self.say(f"{post.name} ended with {said}: {last(log)}")

    # accounts

    def spent(self) -> bool:
        """Whether a budget is used up."""
        now, options = time.monotonic(), self.options
        if now - self.counted < 1.0:
            return False
        self.counted = now
        self.ledger.last(self.session, now - self.began)
        spent = self.ledger.spent()
        if options.max_seconds is not None and spent.seconds >= options.max_seconds:
            self.why = f"{options.max_seconds:g} seconds are spent; a larger --max-seconds goes on"
        if options.max_device_hours is not None and spent.device_seconds >= 3600 * options.max_device_hours:
            self.why = f"{options.max_device_hours:g} hours of devices are spent; a larger --max-device-hours goes on"
        return bool(self.why)

    def write(self, now: bool = False) -> None:
        """Bring the table up to date, now and then."""
        before = time.monotonic()
        if now or before - self.written > max(TABLE, 20 * self.cost):
            self.table.write(self.ledger)
            self.tracking.look(self.ledger)
            self.written = time.monotonic()
            self.cost = self.written - before

    def tell(self) -> None:
        """Say how far things are, now and then."""
        if time.monotonic() - self.told > TELL:
            self.told = time.monotonic()
            self.pasts.look(self.ledger)
            self.say(progress(self.ledger, self.total) + leader(self.pasts, self.about))


def changed_since(folder: Folder, now: Mapping[str, Any], config: Config) -> str:
    """What of the first trial's making is another by now, as its run folder tells."""
    before = read_json(folder.identity)["of"] if folder.identity.exists() else {}
    differs = {name for name in ("data", "code") if name in before and before[name] != now[name]}
    if differs == {"data"}:
        return f"{config.data} has changed"
    if differs == {"code"}:
        return f"the file of {config.model.cell} has changed"
    return "the data or the file of a cell has changed"


def last(log: Sequence[str]) -> str:
    return log[-1] if log else "it printed nothing"
