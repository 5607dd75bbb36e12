"""The command line of a sweep: which words are the sweep's, which are the space's, and what a file says of both."""

import pytest

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.sweeps.options import Sweep, default, described, divided


@pytest.mark.parametrize(
    ("argv", "mine", "given"),
    [
        (["s.toml", "--out", "d", "--trials=4"], ["--space", "s.toml", "--out", "d", "--trials=4"], {}),
        (["--model.width", "8|16", "--workers", "2"], ["--workers", "2"], {"model.width": "8|16"}),
        (["--optimizer.weight-decay=1e-3", "--json"], ["--json"], {"optimizer.weight_decay": "1e-3"}),
        (["--eval.metrics", "hr@5", "mrr@5", "--objectives", "mrr@5", "seconds"],
         ["--objectives", "mrr@5", "seconds"], {"eval.metrics": ["hr@5", "mrr@5"]}),
        (["--model.no-tied", "--model.user"], [], {"model.tied": "false", "model.user": "true"}),
        (["--max-seconds", "5"], ["--max-seconds", "5"], {}),
        (["--help"], ["--help"], {}),
    ],
)  # fmt: skip
def test_words_are_divided(argv, mine, given):
    assert divided(argv) == (mine, given)


def test_a_file_says_both_and_flags_win(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('[model]\nwidth = "8|16"\ndepth = 2\n[sweep]\nsearch = "grid"\ntrials = 4\nout = "there"\n')
    options = default(["--space", str(file)])
    assert (options.search, options.trials, options.out) == ("grid", 4, "there")
    assert default(["--space", str(file), "--out", "here"]).out == "here"
    assert default(["--out", "here"]) is None
    assert described(options, {"model.depth": "1|2"}) == {"model.width": "8|16", "model.depth": "1|2"}
    file.write_text("[sweep]\nserach = 'grid'\nout = 'o'\n")
    with pytest.raises(Mistake, match=r"s.toml \[sweep\]: unknown key 'serach'; did you mean 'search'"):
        default(["--space", str(file)])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "jaxrec: --out is missing; jaxrec sweep --help"),
        (["--serach", "tpe", "--out", "o"], "'--serach' is not an option; did you mean '--search'?"),
        (["--modl.width", "8", "--out", "o"], "did you mean '--model.width'?"),
        (["--out", "o"], "o holds no sweep yet; say what to sweep"),
        (["nowhere.toml", "--out", "o"], "nowhere.toml: cannot be read"),
        (["--model.width", "8|16", "--out", "o"], "a sweep needs an end; say how many trainings, as in --trials 100"),
        (["--model.width", "8|16", "--out", "o", "--trials", "3", "--seeds", "2"], "give 4"),
        (["--model.width", "8|16", "--out", "o", "--trials", "4", "--objectives", "ndcg"], "ndcg"),
        (["--model.width", "8|16", "--out", "o", "--trials", "4", "--objectives", "seconds", "seconds"], "each once"),
        (["--model.width", "8|16", "--out", "o", "--trials", "4", "--objectives", "ndcg@7"], "ndcg@7 is not measured"),
        (["--model.width", "8|16", "--out", "o", "--trials", "4", "--objectives", "seconds", "--prune", "median"],
         "--prune median looks at validations"),
        (["--run", "r", "--model.width", "8|16", "--out", "o", "--trials", "4"], "run = 'r' cannot be part of a space"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(argv, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXREC_TRACEBACK", raising=False)
    assert main(["sweep", *argv]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sentence in said[-1]
    assert sum(line.startswith("jaxrec: ") for line in said) == 1


def test_a_folder_of_something_else_is_not_touched(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years")
    assert main(["sweep", "--model.width", "8|16", "--trials", "4", "--out", str(tmp_path)]) == 2
    assert "is not a sweep, and holds 'thesis.tex'; choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_option_of_a_sweep_but_max_seconds_is_one_of_a_training_too():
    from jaxrec.config import keys
    from jaxrec.runs.options import Config

    assert set(keys(Sweep)) & set(keys(Config)) == {"max_seconds"}
