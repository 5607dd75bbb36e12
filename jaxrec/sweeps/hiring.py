"""Who works for a sweep: processes here, a Ray cluster or Slurm's jobs, as its options say."""

import os
from pathlib import Path

from jaxrec.config import Mistake
from jaxrec.sweeps import crew
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.team import Team

NEEDS = {"ray": ("ray", "ray"), "submitit": ("slurm", "slurm")}  # of a package: who needs it, and the extra with it
HANDED_ON = ("JAXREC_CACHE",)  # what workers elsewhere are told of this environment


def refuse(options: Sweep) -> None:
    """`Mistake` for options that mean nothing together."""
    if options.on == "here" and options.address is not None:
        raise Mistake(
            f"--address {options.address} is of a cluster, and this sweep works here; say --on ray or --on slurm"
        )
    if options.on != "slurm" and options.slurm:
        raise Mistake(f"--slurm {' '.join(options.slurm)} is for Slurm; say --on slurm")
    if options.on == "slurm" and options.workers is None:
        raise Mistake("--on slurm does not know how many jobs to have at a time; say --workers N")


def hired(out: Path, options: Sweep) -> tuple[Team, str]:
    """The workers, none of them started, and who they are in a few words. `Mistake` where a package is missing."""
    if options.on == "here":
        machine = crew.machine()
        shares = crew.shares(machine, options.workers, together=options.together)
        return crew.Crew(out, shares), crew.shared(machine, shares)
    environ = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    try:
        if options.on == "slurm":
            from jaxrec.sweeps.on_slurm import SlurmCrew

            jobs = SlurmCrew(out.resolve(), options, environ)
            return jobs, jobs.told
        if options.address is None:  # a Ray that begins here is for this machine alone
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        from jaxrec.sweeps.on_ray import RayCrew

        actors = RayCrew(out.resolve(), options, environ)
        return actors, actors.told
    except ModuleNotFoundError as error:
        if error.name not in NEEDS:
            raise
        on, extra = NEEDS[error.name]
        raise Mistake(f"--on {on} needs {error.name}: pip install 'jaxrec[{extra}]'") from error
