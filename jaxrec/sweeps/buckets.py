"""Which trainings can share one compiled program, without importing JAX."""

from typing import Any

from jaxrec.config import fingerprint, to_dict
from jaxrec.runs.options import Config

# what only the host decides by, and what trainings that run together cannot have
HOST = (
    "seed", "epochs", "run", "fresh", "max_seconds", "checkpoint_seconds", "on_nan", "nan_limit", "tensorboard", "eval",
    "start_from", "stop", "verify", "diagnose", "diagnose_every", "shards", "trace", "events_on", "readers",
)  # fmt: skip
# numbers that a step takes traced
TRACED = {
    "optimizer": ("lr", "weight_decay", "clip", "clip_value", "momentum", "average"),
    "model": ("dropout", "embedding_dropout", "state_dropout", "event_dropout"),
    "loss": ("temperature", "propensity", "label_smoothing", "alpha", "log_q", "reg", "t"),
}

# what initial weights are drawn by
BEGINNING = ("init", "init_scale", "horizon")


def bucket(config: Config) -> str:
    """What is static in a configuration, as a short hash."""
    static: dict[str, Any] = {name: value for name, value in to_dict(config).items() if name not in HOST}
    for section in ("optimizer", "model"):
        gone = {*TRACED[section], *BEGINNING}
        static[section] = {name: value for name, value in static[section].items() if name not in gone}
    if config.batch.shuffle_over is None:  # a later option: buckets of older sweeps hold
        del static["batch"]["shuffle_over"]
    if config.compute == "float32":
        del static["compute"]
    loss, model = config.loss, config.model
    options = sorted((name, str(value)) for name, value in loss.options.items() if name not in TRACED["loss"])
    static["loss"] = [loss.name, options]
    # at zero these are left out of the program
    rates = (config.optimizer.momentum, model.state_dropout, model.dropout or model.embedding_dropout)
    static["with"] = [bool(rate) for rate in (*rates, loss.options.get("propensity"))]
    later = {
        "clip_value": config.optimizer.clip_value, "event_dropout": model.event_dropout,
        "average": config.optimizer.average,
    }  # fmt: skip
    static["with"] += [name for name, value in later.items() if value]  # by name: buckets of older sweeps hold
    return fingerprint(static)
