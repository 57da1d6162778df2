"""Tables that people bring: quotes, labels, lists, columns; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import baselines
import datasets
import scores
import tables
import test as tester
import train
import utils
import vectors

QUOTE = '"'


def shop(i):
    return f"很{'好差'[i % 2]}的第{i}家店"


def write(path, lines, encoding="utf-8"):
    Path(path).write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def load(path, cache, **options):
    return datasets.load(str(path), tokenizer="char", cache=cache, **options)


# ---- quotes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(5,), (5, 400), (898,)])
def test_a_stray_quote_swallows_no_row(tmp_path, places):
    rows = [f"{i % 2}\t{QUOTE * (i in places)}{shop(i)}" for i in range(900)]
    read, notes = tables.read(write(tmp_path / "quote.tsv", ["label\treview", *rows]))
    assert len(read) == 900 and read[5][1].endswith("很差的第5家店")
    assert len(notes) == 1 and f"{len(places)} rows with a quotation mark that does not close" in notes[0]


def test_a_stray_quote_that_ends_at_another_rows_quote_swallows_none_between(tmp_path):
    rows = [f"{i % 2},{QUOTE * (i == 5)}{shop(i)}{QUOTE * (i == 300)}" for i in range(600)]
    assert len(tables.read(write(tmp_path / "quote.csv", ["label,review", *rows]))[0]) == 600


def test_quoted_texts_of_several_lines_stay_one_row(tmp_path):
    rows = ['1,"第一行', "第二行,还有", '第三行 ""好""。"', "0,差"]
    read, notes = tables.read(write(tmp_path / "lines.csv", ["label,review", *rows]))
    assert read == [(2, '第一行\n第二行,还有\n第三行 "好"。', "1"), (5, "差", "0")] and not notes


def test_many_rows_without_all_columns_are_warned_of(tmp_path, capsys):
    rows = [f"{i % 2},{shop(i)}{',x' if i % 9 == 0 else ''}" for i in range(100)]
    read, notes = tables.read(write(tmp_path / "commas.csv", ["label,review", *rows]))
    assert len(read) == 88 and notes == ["skipped 12 rows without a text, a label or all columns, the first in line 2"]
    assert "12 rows were skipped, 88 are used" in capsys.readouterr().err


# ---- labels -----------------------------------------------------------------------------------------------------------


def test_labels_that_mean_the_same_are_one_class(tmp_path, cache):
    labels = ["0", "0.0", "1", "１", "1.0"]
    corpus = load(
        write(tmp_path / "a.csv", ["label,review", *(f"{labels[i % 5]},{shop(i)}" for i in range(60))]), cache
    )
    assert corpus.classes == ["negative", "positive"] and any("'0.0' as '0'" in note for note in corpus.notes)
    words = ["Positive", "positive", "NEGATIVE", "Positive"]
    corpus = load(write(tmp_path / "b.csv", ["label,review", *(f"{words[i % 4]},{shop(i)}" for i in range(60))]), cache)
    assert corpus.classes == ["NEGATIVE", "Positive"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"{i % 260},{shop(i)}" for i in range(600)], "260 different numbers in 600 rows"),
        ([f"{i / 7:.2f},{shop(i % 600)}" for i in range(600)], "different numbers in 600 rows"),
        ([f"客户{i},{shop(i)}" for i in range(600)], "600 different values in 600 rows"),
    ],
)
def test_a_label_column_that_holds_no_classes_is_refused(tmp_path, cache, lines, message):
    with pytest.raises(SystemExit, match=message):
        load(write(tmp_path / "a.csv", ["label,review", *lines]), cache)


def test_the_text_column_cannot_be_the_label_column(tmp_path):
    with pytest.raises(SystemExit, match="'review' cannot be both the text and the label"):
        tables.read(write(tmp_path / "a.csv", ["label,review", "1,好"]), label_column="review")


def test_json_values_of_other_kinds(tmp_path):
    objects = [{"text": "好", "label": 1.0}, {"text": "坏", "label": True}, {"text": "无", "label": None}]
    read, notes = tables.read(write(tmp_path / "a.json", [json.dumps(objects)]))
    assert [label for *_, label in read] == ["1.0", "true"] and "skipped 1 rows" in notes[0]
    for value in (["好", "吃"], {"a": 1}):
        with pytest.raises(SystemExit, match="a.jsonl, line 2: .* where a text should be"):
            tables.read(
                write(tmp_path / "a.jsonl", ['{"text": "好", "label": 1}', json.dumps({"text": value, "label": 0})])
            )


# ---- several labels a text --------------------------------------------------------------------------------------------


def several(tmp_path, count=400):
    both = {0: "服务", 1: "味道", 2: "服务|味道", 3: "价格"}
    rows = [f"{both[i % 4]},第{i}次{both[i % 4].replace('|', '和')}" for i in range(count)]
    return write(tmp_path / "several.csv", ["label,review", *rows])


def test_several_labels_a_text_are_learned_and_measured_each_by_itself(tmp_path, cache, capsys):
    words = ["--arch", "fasttext", "--device", "cpu", "--cache", str(cache), "--run", str(tmp_path / "run")]
    train.main(["--data", str(several(tmp_path)), *words])
    assert "several labels a text, separated by |: 3 labels" in capsys.readouterr().out
    tester.main(["--run", str(tmp_path / "run"), "--cache", str(cache), "--device", "cpu"])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["micro_f1"] > 0.95 and set(result["classes"]) == {"价格", "味道", "服务"}
    capsys.readouterr()
    tester.main(["--run", str(tmp_path / "run"), "--cache", str(cache), "--device", "cpu", "第9次服务和味道"])
    assert capsys.readouterr().out.startswith("味道|服务; the surest:")


def test_figures_of_several_labels_equal_counting_by_hand():
    probabilities = torch.tensor([[0.9, 0.2, 0.6], [0.1, 0.8, 0.3], [0.7, 0.9, 0.1]])
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    result = tester.measure_several(probabilities, labels, ["a", "b", "c"])
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert result["micro_f1"] == pytest.approx(2 * 3 / (5 + 3)) and result["classes"]["b"]["f1"] == pytest.approx(2 / 3)
    assert result["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    counts = scores.hits(probabilities - 0.5, labels)
    assert scores.scores_of(counts, 3, True) == pytest.approx(
        {name: result[name] for name in ("accuracy", "macro_f1", "micro_f1")}
    )


def test_macro_f1_is_of_the_classes_that_are_there():
    logits, labels = torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1])  # nothing of class 2, neither said nor true
    by_hand = (2 * 1 / (2 + 1) + 2 * 1 / (1 + 2)) / 2
    assert scores.scores_of(scores.hits(logits, labels), 3, False)["macro_f1"] == pytest.approx(by_hand)
    assert tester.measure(logits, labels, ["a", "b", "c"])["macro_f1"] == pytest.approx(by_hand)


def test_the_loss_of_several_labels_is_each_sigmoids():
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 1]])
    expected = -(torch.tensor(2.0).sigmoid().log() + torch.tensor(-1.0).sigmoid().log()) / 2
    assert scores.loss_of(logits, labels).item() == pytest.approx(expected.item())


# ---- baselines --------------------------------------------------------------------------------------------------------


def test_baselines_outlive_one_emoticon_a_missing_class_and_tokens_that_come_once(tmp_path, cache):
    rows = [f"{i % 2},{shop(i)}{'[图]' if i == 7 else ''}" for i in range(600)]
    corpus = load(write(tmp_path / "bracket.csv", ["label,review", *rows]), cache)
    assert max(row["accuracy"] for row in baselines.run(corpus)) == 1.0
    train_rows = corpus.rows("train")
    corpus.parts[train_rows[corpus.labels[train_rows] == 1]] = -1  # all training texts have one class
    assert all("logistic" not in row["name"] for row in baselines.run(corpus))
    once = load(
        write(tmp_path / "once.csv", ["label,review", *(f"{i % 2},{chr(0x4E00 + i)}" for i in range(300))]), cache
    )
    assert len(baselines.run(once)) == 8


def test_a_baselines_strength_is_chosen_on_validation_texts(monkeypatch):
    class Always:
        def __init__(self, answer):
            self.answer = answer

        def predict(self, features):
            return np.full(len(features), self.answer)

    monkeypatch.setattr(baselines, "fit", lambda kind, strength, features, labels: Always(int(strength)))
    labels = {"train": np.ones(9), "val": np.array([1, 1, 0]), "test": np.array([0, 0, 0, 1])}
    row = baselines.best_of("naive Bayes", (0.0, 1.0), labels, labels)
    assert (row["strength"], row["val_accuracy"], row["accuracy"]) == (1.0, pytest.approx(2 / 3), 0.25)


def test_a_baselines_features_are_of_training_texts(tmp_path, cache):
    corpus = load(write(tmp_path / "a.csv", ["label,review", *(f"{i % 2},{shop(i)}" for i in range(600))]), cache)
    features = baselines.features_of(corpus, [], 2, tfidf=True)
    only = baselines.features_of(subset(corpus, "train"), [], 2, tfidf=True)["train"]
    assert features["test"].shape[0] == len(corpus.rows("test"))
    assert only.shape == features["train"].shape and abs(only - features["train"]).max() < 1e-9


def test_a_baselines_runs_see_where_a_text_begins_and_ends(tmp_path, cache):
    """好 is at the end of one class, at the beginning of the other; no other token tells them apart."""
    rows = [f"{i % 2},{'好' * (i % 2)}{i}{'好' * (1 - i % 2)}" for i in range(400)]
    corpus = load(write(tmp_path / "a.csv", ["label,review", *rows]), cache)
    answers = {row["name"]: row["accuracy"] for row in baselines.run(corpus, longest=2)}
    assert answers["counts of 1 to 2 tokens, logistic regression"] == 1.0
    assert answers["counts of single tokens, logistic regression"] < 0.8


def subset(corpus, part):
    """The same corpus without the texts of the other parts, which get one text of it each."""
    parts = np.full_like(corpus.parts, -1)
    rows = corpus.rows(part)
    parts[rows] = datasets.PARTS.index(part)
    copy = datasets.Corpus(corpus.name, corpus.classes, corpus.words, corpus.ids, corpus.starts, corpus.labels, parts,
                           corpus.lines, corpus.raw)  # fmt: skip
    copy.rows = lambda name: rows if name == part else rows[:1]
    return copy


# ---- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_take_the_place_of_drawn_ones_and_missing_words_are_named(tmp_path, capsys):
    path = write(tmp_path / "v.vec", ["3 2", "好 3.0 4.0", "坏 0.0 5.0", "无关 1 1"])
    found = vectors.read(path, ["<pad>", "<unk>", "好", "坏", "店"], vectors.dimension(path))
    assert vectors.dimension(path) == 2 and list(found) == [2, 3]
    torch.testing.assert_close(found[2], torch.tensor([0.6, 0.8]))
    assert "2 of 3 words are in" in capsys.readouterr().out
    for lines, message in ((["好 1 2", "坏 x 2"], "line 2: 2 numbers expected"), (["甲 1 2"], "has none of the words")):
        with pytest.raises(SystemExit, match=message):
            vectors.read(write(tmp_path / "bad.vec", lines), ["<pad>", "<unk>", "好", "坏"], 2)


def test_a_run_starts_from_vectors(tmp_path, cache):
    table = write(tmp_path / "a.csv", ["label,review", *(f"{i % 2},{shop(i)}" for i in range(200))])
    path = write(tmp_path / "v.txt", ["好 " + " ".join(["1"] * 12), "差 " + " ".join(["-1"] * 12)])
    words = ["--data", str(table), "--vectors", str(path), "--arch", "textcnn", "--hidden", "4", "--tokenizer", "char"]
    train.main(
        [
            *words,
            "--lr",
            "1e-9",
            "--epochs",
            "1",
            "--device",
            "cpu",
            "--cache",
            str(cache),
            "--run",
            str(tmp_path / "r"),
        ]
    )
    saved = utils.load_checkpoint(tmp_path / "r" / "best.pt")
    good = saved["model"]["embedding.weight"][saved["meta"]["vocabulary"].index("好")]
    torch.testing.assert_close(good, torch.full((12,), 12**-0.5), atol=1e-4, rtol=1e-4)
