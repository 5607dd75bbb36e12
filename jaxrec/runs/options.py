"""Every option of a training run and of judging it, with its unit and default. Command line and help are made from
these fields.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from jaxrec.config import Call, Mistake, Section, Within
from jaxrec.data.options import Preparation

__all__ = ["Batch", "Compare", "Config", "Evaluate", "Evaluation", "Model", "Optimizer", "Recommend", "Stopping"]

Positive = Annotated[int, Within(1)]
Count = Annotated[int, Within(0)]
Amount = Annotated[float, Within(0.0)]
Rate = Annotated[float, Within(0.0, above=True)]
Lag = Annotated[int, Within(3)]
Share = Annotated[float, Within(0.0, 1.0)]


@dataclass(frozen=True, kw_only=True)
class Model(Section):
    """The network: item embeddings, a stack of recurrent layers, scores for every item."""

    cell: Call = Call("gru")
    """recurrent cell, as in gru(hidden=128) or my_cell.py:MyCell(hidden=64); see `jaxrec list cells`"""
    width: Positive = 64
    """features of an item vector and of every layer"""
    depth: Positive = 1
    """recurrent layers"""
    feedforward: Count = 0
    """hidden features of the feed-forward block after each layer, as a multiple of width; 0 leaves it out"""
    norm: bool = True
    """normalise the input of every layer"""
    residual: bool = True
    """add the input of every layer to its output"""
    dropout: Share = 0.2
    """share of features dropped while training, 0 to 1"""
    embedding_dropout: Share | None = None
    """share of the features of item vectors dropped while training; none is the same as dropout"""
    state_dropout: Share = 0.0
    """share of the recurrent state dropped while training, and carried on that way (GRU4Rec)"""
    event_dropout: Share = 0.0
    """share of events hidden in training, as if their item were unknown; they are predicted all the same"""
    embedding: Positive | None = None
    """features of the vectors that go in, where these are not those that score (with no-tied); none takes width"""
    one_hot: bool = False
    """the first layer reads which item it was: its input weights are the item table (with no-tied)"""
    init: Literal["cell", "glorot", "orthogonal", "chrono"] = "cell"
    """cell: as each cell's paper has it; glorot: every matrix uniform in +-sqrt(6 / (rows + columns)), as GRU4Rec;
    orthogonal: every square recurrent matrix; chrono: gates that keep the state over up to --model.horizon events"""
    horizon: Lag | None = None
    """events over which the units of a gated cell remember at first, at most, for --model.init chrono; at least 3"""
    init_scale: Amount = 1.0
    """what every initial matrix and every vector of a table is multiplied with"""
    tied: bool = True
    """score items with the vectors that embed them; otherwise with a second table"""
    bias: bool = True
    """give every item a bias in its score"""
    user: bool = False
    """give every user of the training data a vector"""
    context: tuple[str, ...] = ()
    """features kept by --features that cells see as context of an event, as in @hour rating; all takes every one"""
    backend: Call | None = None
    """how the recurrence is computed, as in scan(hoist=true); none takes the best; see `jaxrec list backends`"""


@dataclass(frozen=True, kw_only=True)
class Optimizer(Section):
    """How parameters follow the gradient."""

    name: Literal["adam", "adamw", "adagrad"] = "adamw"
    """update rule"""
    lr: Amount = 3e-3
    """learning rate at its highest"""
    weight_decay: Amount = 0.0
    """decay per step as a multiple of the learning rate; for adamw"""
    clip: Amount = 1.0
    """largest global norm of the gradient; 0 never clips"""
    clip_value: Amount = 0.0
    """largest size of any entry of the gradient, cut before --optimizer.clip looks at the norm; 0 never cuts"""
    warmup: Count = 0
    """steps in which the learning rate rises from 0"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up; cosine falls to 0 at the last epoch"""
    accumulate: Positive = 1
    """batches whose gradients are averaged into one step"""
    b1: Share = 0.9
    """decay of the mean of gradients; for adam and adamw"""
    b2: Share = 0.999
    """decay of the mean of squared gradients; for adam and adamw"""
    eps: Rate = 1e-8
    """added to the root of the squared gradients; for adagrad inside the root"""
    accumulator: Amount = 0.1
    """where the sum of squared gradients begins; for adagrad"""
    momentum: Share = 0.0
    """share of the step before that is added to every step (heavy ball); 0 keeps none"""
    lazy: bool = False
    """change only the rows of tables that a step reads, and their moments (with losses that sample)"""
    average: Annotated[float, Within(0.0, 0.9999999)] = 0.0
    """decay per step of a running average of all weights, which is then what is judged and saved; 0 keeps none"""


@dataclass(frozen=True, kw_only=True)
class Batch(Section):
    """What one training step sees."""

    size: Positive = 32
    """rows of a batch; with layout lanes, sequences that run side by side"""
    length: Positive = 50
    """events of a row; with layout lanes, events between two cuts of the gradient"""
    layout: Literal["packed", "windows", "lanes"] = "packed"
    """packed: a row holds pieces of several sequences; windows: one piece; lanes: rows go on from batch to batch"""
    shuffle_over: Positive | None = None
    """events that are shuffled together, in blocks of neighbouring sequences from everywhere, for data larger than
    memory; none shuffles all, at 5 bytes of memory an event (40 while an epoch begins)"""
    nominal: bool = False
    """divide the loss by rows x length of a full batch even where rows have no event, so that such steps weigh less"""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Section):
    """How often and on whom the model is judged."""

    metrics: tuple[str, ...] = ("hr@10", "ndcg@10", "mrr@10")
    """metrics with their list length, see `jaxrec list metrics`; ndcg@10[uni100,seed1] is among sampled candidates"""
    users: Positive | None = None
    """users in the validation sample; none takes all (the final test always does)"""
    every: Positive = 1
    """epochs between validations"""


@dataclass(frozen=True, kw_only=True)
class Stopping(Section):
    """When training ends before its last epoch."""

    metric: str = "ndcg@10"
    """validation metric that chooses the best epoch"""
    patience: Count = 5
    """validations without a better value before stopping; 0 trains to the last epoch"""
    keep: Literal["best", "last"] = "best"
    """weights that are judged and saved: those of the best validation, or those after the last epoch"""


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """One training run."""

    model: Model = field(default_factory=Model)
    """the network"""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """how parameters follow the gradient"""
    batch: Batch = field(default_factory=Batch)
    """what one training step sees"""
    eval: Evaluation = field(default_factory=Evaluation)
    """how often and on whom the model is judged"""
    stop: Stopping = field(default_factory=Stopping)
    """when training ends before its last epoch"""
    loss: Call = Call("softmax")
    """training loss, as in "sampled_softmax(negatives=512, alpha=0.5)"; see `jaxrec list losses`"""
    run: str | None = None
    """directory of the run, created or resumed; none makes one under runs/ named after the configuration"""
    epochs: Count = 20
    """passes over the training data, at most"""
    start_from: str | None = None
    """directory of a finished run to go on from; --epochs counts its epochs, if not on other data (rows by raw id)"""
    seed: Count = 0
    """seed of the initial weights, the order of the data and dropout"""
    max_seconds: Amount | None = None
    """seconds after which training stops and is judged; none sets no limit"""
    checkpoint_seconds: Amount = 300.0
    """seconds between checkpoints inside an epoch"""
    on_nan: Literal["stop", "rollback"] = "stop"
    """when a gradient is not finite: stop, or go back to the state before, leave the batch out and halve the rate"""
    nan_limit: Positive = 8
    """batches that --on-nan rollback may leave out before the run stops all the same"""
    compute: Literal["float32", "bfloat16"] = "float32"
    """type of what training multiplies between layers and for scores; what is kept, summed or judged stays float32"""
    parallel: Literal["jit", "shard_map", "pmap"] = "jit"
    """how a step is spread over devices"""
    devices: Positive = 1
    """devices that train; they share every batch, and with shards the tables too"""
    shards: Positive = 1
    """of these, how many share out the tables and their optimiser's rows: 8 devices with 4 shards cut a batch in two"""
    events_on: Literal["auto", "device", "disk"] = "auto"
    """where events lie while training; disk: each dispatch brings its own, read from the mapped files; auto: on the
    device, unless they would take more than half of its free memory"""
    readers: Positive = 1
    """threads that read the next dispatches' events, where they lie on disk"""
    fresh: bool = False
    """delete the run directory and start again instead of resuming"""
    tensorboard: bool = False
    """also write TensorBoard event files into the run directory"""
    trace: bool = False
    """record two seconds of training with jax.profiler, for Perfetto or XProf: trace in the run directory"""
    diagnose: bool = False
    """look at the gradient flow while training, in a twentieth of the time, compiling the look aside: diagnostics.jsonl
    in the run directory"""
    diagnose_every: Positive | None = None
    """steps between two looks of --diagnose, at least; none looks as often as a twentieth of the time allows"""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Section):
    """Judge a trained model again, on every test target."""

    run: str
    """directory of the run"""
    metrics: tuple[str, ...] = ()
    """metrics to measure beside those of the run, as in map@10 or ndcg@10[pop100,seed1]"""
    slices: bool = False
    """also print the metrics by kind of target: length of history, popularity, repeats, ties in time"""
    parquet: str | None = None
    """file to write the rank of every test target to, beside ranks.npz"""
    allow_code: bool = False
    """run the copy of a user's cell file that lies in the run directory"""
    json: bool = False
    """print JSON instead of a table"""


@dataclass(frozen=True, kw_only=True)
class Compare(Section):
    """Hold runs against the first one, target by target, from what they saved."""

    runs: tuple[str, ...]
    """directories of two or more runs; the first is what the others are held against"""
    metrics: tuple[str, ...] = ()
    """metrics with their list length; none takes those of the first run"""
    split: Literal["test", "valid"] = "test"
    """which targets: test, or the validation targets of the last validation"""
    rounds: Positive = 10_000
    """sign flips of the permutation test"""
    seed: Count = 0
    """seed of the bootstrap and of the permutation test"""
    json: bool = False
    """print JSON instead of tables"""


@dataclass(frozen=True, kw_only=True)
class Seen(Section):
    """Whether a history's own items are recommended."""

    exclude_seen: bool = False
    """leave out the items of the history; without this and the next, as the model was judged"""
    no_exclude_seen: bool = False
    """let items of the history be recommended again"""

    def seen(self) -> bool | None:
        """Whether to leave out the items of a history; None is as the model was judged."""
        if self.exclude_seen and self.no_exclude_seen:
            raise Mistake("--exclude-seen and --no-exclude-seen are both given; keep one")
        return True if self.exclude_seen else False if self.no_exclude_seen else None


@dataclass(frozen=True, kw_only=True)
class Recommend(Seen):
    """Recommend next items; without --history or --histories reads standard input."""

    run: str
    """directory of the run or of a saved model"""
    history: str | None = None
    """item ids, oldest first: "a,b,c", or "a b c", or a JSON list where ids hold commas"""
    times: str | None = None
    """when the events of --history happened, for models that look at gaps or the calendar, in seconds since 1970
    (UTC): "1700000000,1700000060,1700003600" """
    user: str | None = None
    """the person of --history, for models with user vectors or features of users: "u17"; one who is not in the training
    data counts as new"""
    context: tuple[str, ...] = ()
    """other features of the events of --history, for models that look at them, a value an event, nothing between two
    commas where there is none: rating=4,,5 device=tv,tv,web"""
    histories: str | None = None
    """file with one history a line, each written like --history, or with all that the model needs as JSON: {"history":
    ["a", "b"], "times": [1700000000, 1700000060], "user": "u17", "contexts": [{"rating": 4}, {"rating": null}]}"""
    k: Positive = 10
    """items in each list"""
    allow_code: bool = False
    """run the copy of a user's cell file that was saved with the model"""
    json: bool = False
    """print one JSON object per history"""


@dataclass(frozen=True, kw_only=True)
class Score(Seen):
    """Recommend for millions of histories, into a folder of Parquet parts.

    The same command goes on after a kill.
    """

    run: str
    """directory of the run or of a saved model"""
    data: str
    """file, directory or pattern of histories: text with one a line, as recommend --histories takes them, or Parquet
    with a list column history and perhaps times, user, contexts, starts"""
    out: str
    """folder to write: part-00000.parquet, ... with row (place in the data, from 0), user, items and scores"""
    k: Positive = 10
    """items in each list"""
    part: Positive = 32_768
    """histories that are read, scored and written together; a task each on Spark"""
    on: Literal["here", "spark"] = "here"
    """where: in this process, or by Spark's workers; either goes on where the other was killed"""
    spark_master: str | None = None
    """Spark's master, as in local[4] or spark://host:7077; none is spark-submit's, else every core of this machine"""
    allow_code: bool = False
    """run the copy of a user's cell file that was saved with the model"""
    json: bool = False
    """print JSON instead of a sentence"""


@dataclass(frozen=True, kw_only=True)
class Diagnose(Config):
    """Measure how far back a cell learns and looks, on one page:

    jaxrec diagnose --model.cell lstm --lengths 20,50,200 --out atlas

    jaxrec diagnose --run runs/mine --out atlas

    The first measures it untrained, over a short training, and after it.

    Its own options: --out, --run, --lengths, --name, --max-seconds, --titles.

    All others are as in jaxrec train: the model, the data, the training.

    The same --out takes more cells, one command each, on the same page.
    """

    out: str
    """directory of records.jsonl and report.html; records of other cells that are there already stay on the page"""
    run: str | None = None
    """directory of a finished run to measure as it is; what else it was told stands there"""
    lengths: str = "20,50,200"
    """events of the rows that gradients are followed over, as in 20,50,200,1000"""
    name: str | None = None
    """what the page calls it; none: the cell, and with --run the directory beside it"""
    max_seconds: Amount | None = 60.0
    """seconds of training in which the gradient flow is watched; none trains all --epochs, 0 not at all"""
    titles: str | None = None
    """table with an item's id and its title, such as ml-100k.item, for the events that moved a prediction"""
    allow_code: bool = False
    """run the copy of a user's cell file that lies in the directory of --run"""
    json: bool = False
    """print JSON instead of tables"""


@dataclass(frozen=True, kw_only=True)
class Train(Config):
    """Train a model, judge it on the test targets, save it; an old run resumes."""

    config: str | None = None
    """TOML file with options under the names below; flags win over it"""
    profile: Literal["gru4rec"] | None = None
    """settings of a published model as its authors' code has them, laid under the TOML file and the flags"""
    print_config: bool = False
    """print every option with its origin and stop"""
    json: bool = False
    """print JSON instead of tables"""
