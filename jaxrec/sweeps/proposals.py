"""From what a searcher proposes to trials: configurations with their identity, in the order of their numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxrec.config import Mistake, changed, fingerprint, resolve, to_dict
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.metrics import parse
from jaxrec.metrics.sampled import ranked
from jaxrec.runs.folder import cache
from jaxrec.runs.options import Config
from jaxrec.sweeps.buckets import bucket
from jaxrec.sweeps.generations import Generations
from jaxrec.sweeps.ledger import New
from jaxrec.sweeps.pruning import pruner, spared
from jaxrec.sweeps.search import Past, Proposal, searcher
from jaxrec.sweeps.space import Space

LOWEST = ("seconds", "parameters")  # objectives that are no metric: the less the better
HORIZON = "gradient_horizon"  # and one of which more is better


def objectives(names: Sequence[str]) -> list[dict[str, str]]:
    """Objectives by name, and which way is better."""
    for name in names:
        if name not in (*LOWEST, HORIZON):
            parse(name)
    if not names or len(set(names)) < len(names):
        raise Mistake(f"objectives = {', '.join(names) or 'none'}: give each once, and at least one, as in ndcg@10")
    return [{"name": name, "direction": "minimize" if name in LOWEST else "maximize"} for name in names]


def generations(about: Mapping[str, Any], space: Space) -> dict[str, int]:
    """What population-based training is told beside the others. `Mistake` for what does not go with it."""
    population = about.get("population")
    if about["search"] != "pbt":
        if population:
            raise Mistake(f"--population {population} does nothing without --search pbt")
        return {}
    for name, off in (("seeds", 1), ("prune", "none")):
        if about[name] != off:
            raise Mistake(f"--{name} {about[name]} does not go with --search pbt, which lets the weak go by itself")
    if space.constants.get("optimizer.schedule", "constant") != "constant":
        raise Mistake("optimizer.schedule does not go with --search pbt, which changes the rate itself; leave it out")
    return {"population": population or 10, "epochs": space.constants.get("epochs", Config().epochs)}


class Proposals:
    """The trials of a sweep, by number. A configuration has ``seeds`` of them, one after the other."""

    def __init__(self, about: dict[str, Any], say: Callable[[str], None], home: Callable[[int], str]):
        self.home = home
        self.space, self.seeds, self.say = Space.of(about["space"]), about["seeds"], say
        self.objectives, self.code = about["objectives"], about["code"] if about["strict_code"] else ""
        directions: list[Any] = [entry["direction"] for entry in self.objectives]
        pruner(about["prune"], most=1)  # refused before anything is trained
        if about["prune"] == "none" and about.get("prune_after"):
            raise Mistake(f"--prune-after {about['prune_after']} does nothing without --prune median, or another way")
        if about["prune"] != "none" and self.objectives[0]["name"] in (*LOWEST, HORIZON):
            raise Mistake(f"--prune {about['prune']} looks at validations; name one first in --objectives")
        self.searcher = searcher(
            about["search"], self.space, seed=about["seed"], directions=directions, **generations(about, self.space)
        )
        self.refuse_vain(about)
        if HORIZON in {entry["name"] for entry in self.objectives} and not self.space.constants.get("diagnose"):
            raise Mistake(f"--objectives {HORIZON} is measured by trainings that look at themselves; add --diagnose")
        self.data: dict[str, Prepared] = {}
        self.over = False

    def refuse_vain(self, about: Mapping[str, Any]) -> None:
        """`Mistake` where trainings are over before any of them may be given up."""
        if about["prune"] == "none" or any(one.name == "epochs" for one in self.space.dimensions):
            return
        epochs = self.space.constants.get("epochs", Config().epochs)
        if (least := spared(about, epochs)) >= epochs:
            raise Mistake(
                f"--prune {about['prune']} can give nothing up: trainings have epochs = {epochs}, and all of them get "
                f"{least} (--prune-after); give more epochs, or leave it out"
            )

    def ready(self, number: int, past: Callable[[], Sequence[Past]]) -> bool:
        """Whether trial ``number`` can be proposed before more of the others have ended."""
        return not isinstance(self.searcher, Generations) or self.searcher.ready(number, past())

    @property
    def adaptive(self) -> bool:
        """Whether what is proposed depends on what came out before."""
        return self.searcher.adaptive

    def configuration(self, number: int, past: Sequence[Past]) -> list[New]:
        """The trials of a configuration, ``number`` the first of them; none where nothing is left to propose."""
        proposal = None if self.over else self.searcher.propose(number // self.seeds, past)
        if proposal is None:
            self.over = True
            return []
        return [self.trial(number + repeat, proposal, repeat) for repeat in range(self.seeds)]

    def trial(self, number: int, proposal: Proposal, repeat: int) -> New:
        """The trial at a point, one that failed already where the point is no configuration."""
        point, notes, options = proposal.point, proposal.notes, dict(proposal.options)
        if "parent" in notes:
            options["start_from"] = self.home(notes["parent"])
        try:
            config = resolve(Config, flags=self.space.flags(point) | options).section
        except Mistake as mistake:
            name = f"refused-{fingerprint(point)}-s{repeat}"
            return New(number, name, dict(point), {}, "", repeat, repeat, dict(notes), refused=str(mistake))
        config = changed(config, seed=config.seed + repeat)
        self.refuse(config)
        plain = to_dict(config)
        return New(number, self.id(config), dict(point), plain, bucket(config), config.seed, repeat, dict(notes))

    def refuse(self, config: Config) -> None:
        """`Mistake` where an objective or what prunes is not measured."""
        measured = {parse(name): name for name in ranked(config.eval.metrics)}
        for name in (entry["name"] for entry in self.objectives if entry["name"] not in (*LOWEST, HORIZON)):
            if measured.get(parse(name)) != name:
                raise Mistake(
                    f"objective {name} is not measured; add it to eval.metrics ({', '.join(measured.values())})"
                )

    def id(self, config: Config) -> str:
        """The id of the run that a configuration is, and of the code where that decides too."""
        return self.identified(config)[0]

    def identified(self, config: Config) -> tuple[str, dict[str, Any]]:
        """The id, and what it is the hash of."""
        from jaxrec.runs.bundle import read_code
        from jaxrec.runs.run import identity

        run_id, of = identity(config, self.prepared(config), read_code(config.model.cell))
        return run_id + (f"-{self.code[:12]}" if self.code else ""), of

    def prepared(self, config: Config) -> Prepared:
        """A configuration's data, prepared once for all that ask for the same."""
        asked = Preparation(**{name: getattr(config, name) for name in Preparation.__dataclass_fields__})
        key = fingerprint(to_dict(asked))
        if key not in self.data:
            self.data[key] = prepare_cached(asked, cache(), say=self.say)
        return self.data[key]
