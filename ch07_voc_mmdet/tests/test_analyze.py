"""analyze_log.py: reads what mmengine writes, over several starts of a run, and says what was best."""

import json

import pytest

import analyze_log


def write_log(run, start, steps, scores, loss=1.0):
    """A start of a run: rows of training at `steps`, and of validation {epoch: mAP50}."""
    folder = run / start / "vis_data"
    folder.mkdir(parents=True)
    train = [
        {
            "lr": 0.1,
            "data_time": 0.1,
            "loss": loss / step,
            "loss_cls": 0.5,
            "time": 0.4,
            "epoch": 1 + step // 20,
            "step": step,
        }
        for step in steps
    ]
    val = [
        {"mAP50": score, "mAP": score / 2, "data_time": 0.1, "time": 0.2, "step": epoch}
        for epoch, score in scores.items()
    ]
    (folder / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in train + val))
    return folder / "scalars.json"


def test_a_resumed_run_is_one_run(tmp_path):
    run = tmp_path / "run"
    first = write_log(run, "20260101_000000", [10, 20, 30], {1: 0.2})
    first.write_text(first.read_text() + '{"lr": 0.1, "lo')  # killed while writing
    write_log(run, "20260101_010000", [20, 30, 40], {2: 0.6, 3: 0.5}, loss=3.0)
    train, val = analyze_log.read_run(run)
    assert [row["step"] for row in train] == [10, 20, 30, 40]
    assert [row["loss"] for row in train] == [1 / 10, 3 / 20, 3 / 30, 3 / 40]  # what was done again counts as done last
    assert [row["mAP50"] for row in val] == [0.2, 0.6, 0.5]
    row = analyze_log.summary("run", train, val, None)
    assert (row["best epoch"], row["mAP50"], row["mAP"], row["steps"]) == (2, 0.6, 0.3, 40)
    assert row["s/step"] == pytest.approx(0.4) and row["data %"] == pytest.approx(25)


def test_several_runs_the_best_first_with_their_curves(tmp_path, capsys):
    for name, score in (("weak", 0.3), ("strong", 0.7), ("blind", None)):
        write_log(tmp_path / name, "20260101_000000", [10, 20], {} if score is None else {1: score})
    runs = [str(tmp_path / name) for name in ("weak", "blind", "strong")]
    analyze_log.main([*runs, "--out", str(tmp_path / "all.png")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "epochs", "steps"] and "mAP50" in lines[0]
    assert ["strong" in lines[1], "weak" in lines[2], "blind" in lines[3]] == [True] * 3
    assert (tmp_path / "all.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "line",
    ["5", "[]", "null", '"x"', "{}", '{"step": null}', '{"step": "x", "lr": 1}', '{"lr": 0.1, "step": NaN, "loss": 1}',
     '{"step": 1e400}', "\x00\x00", "\ud800", "[" * 9999],
)  # fmt: skip
def test_odd_lines_are_named_and_left_out(tmp_path, line, capsys):
    file = write_log(tmp_path / "run", "20260101_000000", [10, 20], {1: 0.3, 2: 0.5})
    file.write_bytes(line.encode("utf-8", "surrogatepass") + b"\n\n" + file.read_bytes())
    analyze_log.main([str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert ("scalars.json, line 1: not a row of a log" in said) == (line != "\x00\x00") and "0.5000" in said


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", '"0.9"', "[1]", "true"])
def test_numbers_that_are_none_are_no_score_and_no_loss(tmp_path, value, capsys):
    file = write_log(tmp_path / "错误 $x$", "20260101_000000", [10, 20], {1: 0.3, 2: 0.5})
    odd = f'{{"mAP50": {value}, "step": 3}}\n{{"lr": 0.1, "loss": {value}, "time": {value}, "step": 30}}\n'
    file.write_text(file.read_text() + odd)
    train, val = analyze_log.read_run(tmp_path / "错误 $x$")
    row = analyze_log.summary("run", train, val, None)
    assert (row["best epoch"], row["mAP50"], row["steps"]) == (2, 0.5, 30)
    analyze_log.main([str(tmp_path / "错误 $x$")])


def test_what_is_no_run_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="no runs in runs/"):
        analyze_log.main([])
    with pytest.raises(SystemExit, match="gone: no .*scalars.json there"):
        analyze_log.main(["gone"])
    write_log(tmp_path / "run", "20260101_000000", [10], {1: 0.5})
    with pytest.raises(SystemExit, match="no score 'mAP75' in its log; there are: mAP50, mAP"):
        analyze_log.main(["run", "--key", "mAP75"])
    write_log(tmp_path / "empty", "20260101_000000", [], {})
    with pytest.raises(SystemExit, match="nothing of training"):
        analyze_log.main(["empty"])
