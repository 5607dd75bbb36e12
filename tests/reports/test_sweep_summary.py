"""What a sweep says at its end."""

from jaxrec.reports.sweep_summary import print_sweep

FOUND = {
    "sweep": "sweeps/my sweep", "trials": {"done": 6, "pruned": 2}, "total": 8, "seeds": 2, "complete": True,
    "ended": "", "objectives": [{"name": "ndcg@10"}, {"name": "seconds"}], "same": 2,
    "best": [{"trial": 4, "values": {"ndcg@10": 0.123456, "seconds": 1234.5}, "point": {"optimizer.lr": 0.0123456}}],
    "failures": [{"signature": "Mistake x.py:1", "count": 2, "trial": 3, "reason": "no [such] thing"}],
    "seconds": 12.0, "device_seconds": 7200.0,
}  # fmt: skip


def test_the_end_names_means_repeats_failures_and_the_next_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_sweep(FOUND)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "trial"
    assert "ndcg@10, mean of 2" in lines[0]
    assert lines[1].split() == ["4", "0.1235", "1,234", "optimizer.lr=0.01235"]
    assert lines[2] == "2 x Mistake x.py:1, as in trial 3: no [such] thing"
    assert "8 trials (6 done, 2 pruned) in 12 s, 2.00 device hours; 2 were answered from an earlier one" in lines[3]
    assert lines[4] == "jaxrec report 'sweeps/my sweep' writes its page"


def test_one_training_a_configuration_is_no_mean(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_sweep(FOUND | {"seeds": 1, "same": 0, "ended": "60 seconds are spent; a larger --max-seconds goes on"})
    said = capsys.readouterr().out
    assert "mean" not in said
    assert "earlier" not in said
    assert "; 60 seconds are spent; a larger --max-seconds goes on\n" in said


def test_members_of_a_population_are_named(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_sweep(FOUND | {"seeds": 1, "best": [FOUND["best"][0] | {"member": 3, "generation": 2}]})
    assert "optimizer.lr=0.01235 (member 3, generation 2)" in capsys.readouterr().out
