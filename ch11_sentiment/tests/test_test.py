"""test.py: its figures equal counting by hand, it answers texts, files and pipes, and it refuses what it cannot use."""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import save_file

import datasets
import explain
import models
import reading
import test as tester
import text
import train
import utils

WORDS = ["很", "好", "坏", "不", "今天", "心情", "[哈哈]"]
META = {
    "arch": "fasttext", "classes": ["negative", "positive"], "data": "toy", "vocabulary": [*text.SPECIAL, *WORDS],
    "tokenizer": "jieba", "emoticons": "keep", "stop_words": ["的"], "max_length": 20, "sizes": {"dim": 2, "hidden": 10},
}  # fmt: skip


def counting_model(meta=META):
    """A network that knows 好, worth 3, and 坏, worth -2; what it says of a text is their sum over the root of their number."""
    model = models.build("fasttext", len(meta["vocabulary"]), 2, **meta["sizes"])
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[meta["vocabulary"].index("好"), 1] = 3.0
        model.embedding.weight[meta["vocabulary"].index("坏"), 1] = -2.0
        model.head.weight.copy_(torch.eye(2))
        model.head.bias.zero_()
    return model.eval()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "toy.safetensors"
    utils.save_weights(path, counting_model(), **META)
    return path


@pytest.fixture
def ask(weights, cache, capsys):
    """ask("很好", ...) -> what test.py prints."""

    def answer(*words):
        tester.main(["--weights", str(weights), "--cache", str(cache), "--device", "cpu", *map(str, words)])
        return capsys.readouterr().out

    return answer


def test_figures_equal_counting_by_hand():
    torch.manual_seed(0)
    probabilities, labels = torch.rand(400, 3).softmax(1), torch.randint(0, 3, (400,))
    result = tester.measure(probabilities, labels, ["a", "b", "c"])
    confidence, guess = probabilities.max(1)
    right = guess == labels
    assert result["accuracy"] == pytest.approx(right.double().mean().item())
    for i, row in enumerate(result["classes"].values()):
        tp, said, true = (
            ((guess == i) & (labels == i)).sum().item(),
            (guess == i).sum().item(),
            (labels == i).sum().item(),
        )
        assert row["texts"] == true and result["confusion"][i][i] == tp
        assert row["precision"] == pytest.approx(tp / said) and row["recall"] == pytest.approx(tp / true)
        assert row["f1"] == pytest.approx(2 * tp / (said + true))
    error = sum(abs(row["confidence"] - row["right"]) * row["texts"] for row in result["calibration"]) / 400
    assert result["calibration_error"] == pytest.approx(error, abs=1e-5)
    assert sum(row["texts"] for row in result["calibration"]) == 400


def test_answers_and_the_words_that_drove_them(ask):
    said = ask("今天心情很好", "坏")
    assert said.splitlines()[0].startswith("positive 0.") and said.splitlines()[2] == "negative 0.881: 坏"
    assert said.splitlines()[1].split()[2] == "好" and float(said.splitlines()[1].split()[3]) > 0
    model = counting_model()
    reader = explain.Reader(META, "unused")
    numbers, words = [META["vocabulary"].index("好"), META["vocabulary"].index("坏")], [("好", 0, 1), ("坏", 1, 2)]
    influence = explain.influence(model, torch.tensor(numbers), words, answer=1)
    both = (3 - 2) / 2**0.5
    assert influence == pytest.approx([both - -2, both - 3])  # what both say, less what the other says alone
    assert reader.number["的"] == -1


def test_files_and_pipes_become_json_lines(ask, tmp_path, run_script, weights, cache):
    path = tmp_path / "reviews.txt"
    path.write_bytes("\ufeff今天心情很好\n\n坏😊\n".encode("utf-8") + ("好" * 10_000).encode())
    rows = [json.loads(line) for line in ask(path).splitlines()]
    assert [row["label"] for row in rows] == ["positive", None, "negative", "positive"]
    assert rows[0]["words"][0][0] == "好" and sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert "nothing is left" in rows[1]["why"] and rows[2]["text"] == "坏😊"
    words = ("--weights", weights, "--cache", cache, "--device", "cpu", "--no-words")
    done = run_script("test.py", *words, "-", input="坏\n好\n")
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["negative", "positive"]
    assert "words" not in done.stdout and done.stderr.startswith("weights: ") and done.stderr.count("\n") == 1


def test_a_table_is_read_by_its_text_column_and_answered_row_by_row(ask, table):
    path = table([("好", "x"), ("", "y"), ("坏,坏", "z")], header=("content", "id"))
    rows = [json.loads(line) for line in ask(path, "--no-words").splitlines()]
    assert [row["label"] for row in rows] == ["positive", None, "negative"] and rows[2]["text"] == "坏,坏"
    other = table([("x", "好")], name="b.csv", header=("id", "body"))
    assert json.loads(ask(other, "--text-column", "body"))["text"] == "好"
    with pytest.raises(SystemExit, match="no text column, only id, body; name it with --text-column"):
        ask(other)


@pytest.mark.parametrize("word", ["reveiws.txt", "no/such/file", "reviews.CSV"])
def test_a_mistyped_file_is_no_text(ask, word):
    with pytest.raises(SystemExit, match="there is no such file"):
        ask(word)


def test_lines_are_answered_as_they_come(monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read, "r"))
    answers = reading.texts_of(["-"])
    os.write(write, "很好\u2028很坏\n".encode())
    assert next(answers) == (False, ["很好\u2028很坏"])  # before the second line is there
    os.write(write, "今天的心情很好\n".encode("gb18030") + b"x")
    os.close(write)
    assert [line for _, some in answers for line in some] == ["今天的心情很好", "x"]


def test_many_classes_with_odd_names_are_drawn_and_printed_in_part(tmp_path, capsys):
    torch.manual_seed(0)
    classes = [f"${i}^_类\\" for i in range(260)]
    labels = torch.arange(260).repeat(3)
    result = tester.measure(torch.rand(780, 260).softmax(1), labels, classes)
    tester.draw_confusion(result, tmp_path / "confusion.png")
    tester.print_table(result)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert capsys.readouterr().out.count("\n") == 32 and len(result["classes"]) == 260


def test_a_folder_where_nobody_may_write_is_no_reason_to_stop(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    corpus = datasets.load("sample", cache=tmp_path / "file" / "cache")  # as in a read-only folder: cannot be made
    assert len(corpus.labels) > 5000
    path = tmp_path / "t.csv"
    path.write_text("label,review\n" + "".join(f"{i % 2},第{i}条\n" for i in range(60)), "utf-8")
    assert len(datasets.load(str(path), cache=tmp_path / "file" / "cache").labels) == 60
    assert "the tokens are not cached" in capsys.readouterr().err


def test_a_file_in_the_wrong_encoding_is_refused(ask, tmp_path):
    (tmp_path / "korean.txt").write_bytes("이 영화는 정말 재미있어요 다시 보고 싶다\n".encode("cp949"))
    with pytest.raises(SystemExit, match="korean.txt, line 1: neither UTF-8"):
        ask(tmp_path / "korean.txt")
    (tmp_path / "utf16.txt").write_bytes("今天心情很好\n".encode("utf-16"))
    assert json.loads(ask(tmp_path / "utf16.txt"))["label"] == "positive"
    (tmp_path / "gb.txt").write_bytes("今天我的心情很好\n".encode("gb18030"))
    assert json.loads(ask(tmp_path / "gb.txt"))["label"] == "positive"


def test_a_text_of_nothing_or_of_stop_words_or_unknown_words(ask):
    assert ask("的").startswith("negative 0.500") or ask("的").startswith("positive 0.500")
    assert "0.500" in ask("龘靐齉")
    with pytest.raises(SystemExit, match="there is nothing to judge"):
        ask("  ")


@pytest.mark.parametrize("tokenizer", text.TOKENIZERS)
def test_words_cover_the_text_whatever_the_tokenizer(tokenizer, cache):
    meta = META | {"tokenizer": tokenizer, "max_length": 9, "stop_words": ["的"]}
    numbers, words = explain.Reader(meta, cache)("今天的心情 I don't[哈哈]很好很好很好")
    assert len(numbers) == 9 and [end for _, _, end in words] == [*(start for _, start, _ in words[1:]), 9]
    assert [w for w, _, _ in words][:2] == ["今天", "心情"] and "[哈哈]" in [w for w, _, _ in words]


def test_the_picture_shows_every_word_and_is_valid_xml(ask, tmp_path):
    from xml.etree import ElementTree

    ask("今天<心情>很好&", "--picture", tmp_path / "words.svg")
    shown = "".join(ElementTree.parse(tmp_path / "words.svg").getroot().itertext())
    assert "今天" in shown and "心情" in shown and "&" in shown


def test_paint_colours_by_sign():
    painted = explain.paint([("好", 0, 1), ("坏", 1, 2)], [2.0, -1.0])
    green, red = painted.split("\x1b[0m")[:2]
    assert "48;2;40;160;70m" in green and "好" in green and "48;2;235;158;158m" in red and "坏" in red


def test_the_weights_of_another_vocabulary_or_network_are_refused(weights, tmp_path):
    state, meta = utils.load_weights(weights)
    utils.save_weights(
        tmp_path / "words.safetensors", counting_model(), **(meta | {"vocabulary": meta["vocabulary"][:-1]})
    )
    utils.save_weights(tmp_path / "arch.safetensors", counting_model(), **(meta | {"arch": "lstm"}))
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:300])
    for name, message in (
        ("words", "says fasttext with 14 words, but the weights in it are of another network or vocabulary"),
        ("arch", "says lstm with 15 words, but the weights in it are of another network or vocabulary"),
        ("bare", "not of a run of this chapter"),
        ("cut", "not a safetensors file that can be read"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["--weights", str(tmp_path / f"{name}.safetensors"), "--device", "cpu", "好"])


def test_an_unknown_label_is_named_with_its_line(ask, table, tmp_path):
    path = table([(f"第{i}条", ("negative", "positive", "mixed")[i % 3]) for i in range(60)])
    with pytest.raises(
        SystemExit, match="reviews, line 4: the label 'mixed' is unknown to .*, which has negative, positive"
    ):
        ask("--data", path, "--out", tmp_path)


def test_baselines_stand_beside_the_network(ask, table, tmp_path):
    path = table([(f"{i},{'好' if i % 2 else '坏'}[{'哈哈' if i % 2 else '泪'}]", i % 2) for i in range(600)])
    said = ask("--data", path, "--out", tmp_path / "out", "--baselines")
    result = json.loads((tmp_path / "out" / "test.json").read_text("utf-8"))
    assert "emoticons alone, naive Bayes" in said and "TF-IDF of 1 to 2 tokens, logistic regression" in said
    assert len(result["baselines"]) == 9 and result["accuracy"] == 1.0
    assert all(row["accuracy"] > 0.95 for row in result["baselines"])


def test_an_ensemble_is_the_mean_of_what_its_networks_say(table, tmp_path, cache, capsys):
    """One network knows 好 and 坏. The other, which reads characters, takes 好 for 坏, but is less sure of it."""
    path = table([(f"{i},{'好' if i % 2 else '坏'}", i % 2) for i in range(300)])
    for name, good in (("a", 3.0), ("b", -0.5)):
        model = counting_model()
        with torch.no_grad():
            model.embedding.weight[META["vocabulary"].index("好"), 1] = good
        (tmp_path / name).mkdir()
        meta = META | ({"tokenizer": "char"} if name == "b" else {})
        utils.save_checkpoint(tmp_path / name / "best.pt", {"meta": meta, "model": model.state_dict(), "epoch": 1})
    words = ["--data", str(path), "--cache", str(cache), "--device", "cpu"]
    accuracy, args = {}, tester.parse(words)
    for names in ("a", "b", "ab", "ba"):
        out, runs = tmp_path / f"out-{names}", [str(tmp_path / name) for name in names]
        tester.main(["--ensemble", *runs, *words, "--out", str(out)])
        accuracy[names] = json.loads((out / "test.json").read_text("utf-8"))["accuracy"]
    assert accuracy["a"] == accuracy["ab"] == accuracy["ba"] == 1.0 and 0.3 < accuracy["b"] < 0.7
    assert "mean of 2 networks, trained on toy" in capsys.readouterr().out and not (out / "words.svg").exists()
    a, b = (tester.load_model(args, run, torch.device("cpu")) for run in runs[::-1])
    each = [tester.predict_test_split(args, [one], torch.device("cpu"))[2] for one in (a, b)]
    both = tester.predict_test_split(args, [a, b], torch.device("cpu"))[2]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_networks_that_were_tested_on_other_texts_or_classes_have_no_mean(table, tmp_path, cache):
    path = table([(f"{i},{'好' if i % 2 else '坏'}[哈哈]", i % 2) for i in range(100)])
    others = {"a": {}, "emoticons": {"emoticons": "strip"}, "classes": {"classes": ["positive", "negative"]}}
    for name, other in others.items():
        (tmp_path / name).mkdir()
        state = {"meta": META | other, "model": counting_model().state_dict(), "epoch": 1}
        utils.save_checkpoint(tmp_path / name / "best.pt", state)
    words = ["--data", str(path), "--cache", str(cache), "--device", "cpu", "--out", str(tmp_path / "out")]
    repeated = table([(f"好{i // 2}{'[哈哈]' * (i % 2)}", 1) for i in range(100)] + [("坏", 0)], name="repeated.csv")
    for name, data in (("emoticons", repeated), ("classes", path)):
        words[1] = str(data)
        with pytest.raises(SystemExit, match="classes or their test texts differ"):
            tester.main(["--ensemble", str(tmp_path / "a"), str(tmp_path / name), *words])
    with pytest.raises(SystemExit, match="--ensemble tests several runs"):
        tester.main(["--ensemble", str(tmp_path / "a"), "--weights", "x.safetensors"])


def test_baselines_of_a_run_learn_from_what_the_run_trained_on(table, tmp_path, cache, capsys):
    rows = [(f"{i},{'好' if i % 2 else '坏'}", i % 2) for i in range(300)]
    words = ["--device", "cpu", "--cache", str(cache)]
    data = ["--data", str(table(rows)), "--arch", "textcnn", "--dim", "4", "--hidden", "4", "--epochs", "1"]
    train.main([*data, *words, "--run", str(tmp_path / "run")])
    tester.main(["--run", str(tmp_path / "run"), *words, "--baselines"])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert len(result["baselines"]) == 8 and all(row["accuracy"] > 0.9 for row in result["baselines"])


def test_shipped_weights_state_their_score_and_judge_plain_sentences(cache, capsys):
    _, meta = utils.load_weights(tester.WEIGHTS)
    assert tester.WEIGHTS.stat().st_size <= 6e6 and meta["emoticons"] == "strip"
    assert meta["data"] == meta["score"]["tested_on"] == "weibo_senti_100k" and meta["score"]["accuracy"] > 0.76
    assert meta["command"].startswith("python train.py --arch fasttext --data weibo_senti_100k.csv --emoticons strip")
    good, bad = ["今天心情很好", "哈哈哈太开心了,谢谢大家"], ["好难过,想哭", "气死我了,太过分了"]
    tester.main(["--weights", str(tester.WEIGHTS), "--cache", str(cache), "--device", "cpu", *good, *bad])
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in said] == ["positive"] * 2 + ["negative"] * 2
