"""`python -m jaxrec.runs CONFIG.json`: one run from a resolved configuration, for schedulers and slim machines.

CONFIG.json is what a run folder holds as `config.json`. Where `data` names prepared data this needs jax, flax, optax,
orbax, numpy and jaxtyping only: nothing that reads other formats, draws tables or parses a command line.
"""

import json
import signal
import sys
from pathlib import Path

from jaxrec.config import Mistake, from_dict
from jaxrec.runs.folder import read_json
from jaxrec.runs.options import Config
from jaxrec.training.ending import ended
from jaxrec.training.stop import StopSignal


def main(argv: list[str]) -> int:
    """The exit status, as that of `jaxrec train`: 0, 2 for a mistake, 75 when a signal stopped the run and the same
    command goes on.
    """
    early = StopSignal(signal.SIGTERM)  # imports take seconds
    try:
        if len(argv) != 1:
            raise Mistake(f"{len(argv)} arguments were given; give one, the path of a configuration in JSON")
        config = from_dict(Config, read_json(Path(argv[0])), argv[0])
        command = ["python", "-m", "jaxrec.runs", *argv]
        with early, early.raising():
            from jaxrec.runs.run import train

            if result := train(config, command=command, say=say):
                print(json.dumps(result))
    except BaseException as error:
        return ended(error, say)
    return 0


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
