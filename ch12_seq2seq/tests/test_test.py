"""test.py: its figures, its translations, its pictures, and what it refuses."""

import io
import json
import os
import sys

import matplotlib
import pytest
import sacrebleu
import torch
from safetensors.torch import save_file

import datasets
import heatmap
import metrics
import models
import reading
import sample
import search
import test as tester
import utils
from text import Rules

PAIRS = sample.make(300)
CPU = ("--device", "cpu")


@pytest.fixture
def weights(tmp_path, small):
    """A small untrained network that knows the sample's words, saved as shared weights."""
    codec = datasets.Codec.of(PAIRS, (Rules(language=""), Rules()), 1, 50)
    torch.manual_seed(0)
    sizes = {"width": 16, "hidden": 24, "layers": 1, "dropout": 0.0}
    model = models.build("general", len(codec.source), len(codec.target), **sizes)
    meta = {"arch": "general", "sizes": sizes, "data": "sample", "reverse": False, "sha256": None} | codec.metadata()
    utils.save_weights(tmp_path / "general.safetensors", model, **meta)
    return tmp_path / "general.safetensors"


def test_bleu_is_sacrebleus_and_takes_any_number_of_references():
    answers = ["我喜欢红色的猫。", "他昨天在学校买了两本书。", "汤姆走了。"]
    references = [
        ["我喜欢红猫。"],
        ["他昨天在学校买了两本书。", "昨天他在学校买了两本书。"],
        ["汤姆离开了。", "汤姆走了。"],
    ]
    first = sacrebleu.corpus_bleu(answers, [[row[0] for row in references]], tokenize="zh").score
    assert metrics.bleu(answers, [row[:1] for row in references])[0] == pytest.approx(first)
    score, signature = metrics.bleu(answers, references)
    assert first < score < 100 and "tok:zh" in signature and f"version:{sacrebleu.__version__}" in signature
    assert metrics.chrf(answers, [[answer] for answer in answers])[0] == pytest.approx(100)
    assert metrics.exact(answers, references) == pytest.approx(2 / 3)


def test_measure_counts_pairs_and_sentences():
    codec = datasets.Codec.of(PAIRS, (Rules(language=""), Rules()), 1, 50)
    pairs = [*PAIRS[:40], (PAIRS[0][0], "别的。")]  # the first sentence has a second translation
    right = list(dict(reversed(PAIRS[:40])).values())[::-1]
    result = tester.measure(right, pairs, codec)
    assert (result["pairs"], result["sentences"], result["exact"]) == (41, 40, 1.0)
    assert result["bleu_all_references"] == pytest.approx(100) and 90 < result["bleu"] < 100
    assert sum(row["sentences"] for row in result["rows"]) == 40


def test_perplexity_is_of_the_right_tokens(small):
    codec = datasets.Codec.of(PAIRS, (Rules(language=""), Rules()), 1, 50)
    model = small("dot", (len(codec.source), len(codec.target)))
    total, count = 0.0, 0
    for source, target in PAIRS[:20]:
        s, t = torch.tensor([codec.encode_source(source)]), torch.tensor([codec.encode_target(target)])
        with torch.inference_mode():
            steps = model(s, t[:, :-1]).log_softmax(2)
        total -= steps.gather(2, t[:, 1:, None]).sum().item()
        count += t.shape[1] - 1
    expected = torch.tensor(total / count).exp().item()
    assert tester.perplexity(model, codec, PAIRS[:20], torch.device("cpu")) == pytest.approx(expected, rel=1e-4)


# ---- translating ------------------------------------------------------------------------------------------------------


def test_sentences_files_and_standard_input(weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "letter.txt").write_text("I bought a book.\n\nTom will see two dogs.\n", "utf-8")
    words = ["--weights", str(weights), *CPU]
    tester.main(["I bought a book.", str(tmp_path / "letter.txt"), *words])
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 5 and lines[0] == lines[1] != "" and lines[2] == ""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Tom will see two dogs.")))
    tester.main(["-", *words])
    assert capsys.readouterr().out == lines[3] + "\n"
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SystemExit, match="latin.txt, line 1: neither UTF-8"):
        tester.main([str(tmp_path / "latin.txt"), *words])


def test_a_sentence_of_2000_words_and_one_of_unknown_characters(weights, capsys):
    tester.main(["very " * 2000, "\U0001f642 𠮷 Zyzzyva", "--weights", str(weights), "--beam", "2", *CPU])
    said = capsys.readouterr()
    assert said.out.count("\n") == 2 and "sentence 1: 2,000 tokens; only the first 50 are read" in said.err


def test_shipped_weights_answer_right_after_clone(run_script):
    done = run_script("test.py", "I love you.", "--weights", tester.WEIGHTS, *CPU)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "我爱你。\n"


def test_shipped_weights_translate_plain_sentences():
    """Sentences of a phrase book, and what a reader of Chinese would accept; two of the twelve may go wrong."""
    right = {
        "Where is the station?": ["车站在哪里？", "车站在哪？", "车站在哪儿？"],
        "I bought two books.": ["我买了两本书。", "我买了二本书。"],
        "She is my friend.": ["她是我的朋友。", "她是我朋友。"],
        "He is a teacher.": ["他是老师。", "他是个老师。", "他是一名老师。", "他是一个老师。"],
        "What is your name?": ["你叫什么名字？", "你的名字是什么？", "你叫什么？"],
        "I don't know.": ["我不知道。"],
        "Thank you.": ["谢谢你。", "谢谢。", "谢谢您。"],
        "I can speak Chinese.": ["我会讲中文。", "我会说中文。", "我会说汉语。"],
        "Do you like music?": ["你喜欢音乐吗？"],
        "My mother is cooking.": ["我妈妈在做饭。", "我妈妈正在做饭。", "我母亲在做饭。", "我母亲正在做饭。"],
        "We are students.": ["我们是学生。"],
        "I have never been to China.": ["我从来没去过中国。", "我从没去过中国。", "我没去过中国。"],
    }
    model, codec, _, _ = tester.load_model(tester.parse(["--weights", str(tester.WEIGHTS), *CPU]), torch.device("cpu"))
    answers = search.as_text(codec, search.translate(model, codec, list(right), torch.device("cpu"), beam=5))
    assert sum(answer in right[text] for text, answer in zip(right, answers, strict=True)) >= 10, answers


def test_shipped_weights_state_how_they_were_made():
    state, meta = utils.load_weights(tester.WEIGHTS)
    assert tester.WEIGHTS.stat().st_size <= 10e6
    assert meta["data"] == meta["score"]["tested_on"] == "cmn-eng" and meta["sha256"] == datasets.MEASURED
    assert meta["command"].startswith("python train.py") and "tok:zh" in meta["score"]["signature"]
    assert len(state["source_embedding.weight"]) == len(meta["source"]["words"])


def test_what_is_exported_is_what_was_measured(tmp_path, weights):
    """16 bits in the file; and those, not the 32 of the run, have the score."""
    state, meta = utils.load_weights(weights)
    run = tmp_path / "run"
    run.mkdir()
    utils.save_checkpoint(run / "best.pt", {"model": state, "meta": meta, "epoch": 1})
    recipe = {"data": "sample", "seed": 0, "epochs": 1, "precision": "fp32", "reverse": False, "compile": False}
    (run / "args.json").write_text(json.dumps(recipe))
    out = tmp_path / "shared.safetensors"
    tester.main(["--run", str(run), "--export", str(out), "--beam", "1", *CPU])
    small_state, small_meta = utils.load_weights(out)
    assert {t.dtype for t in small_state.values()} == {torch.float16}
    assert small_meta["command"] == "python train.py --data sample --seed 0 --epochs 1 --precision fp32"
    tester.main(["--weights", str(out), "--out", str(tmp_path / "again"), "--beam", "1", *CPU])
    again = json.loads((tmp_path / "again" / "test.json").read_text("utf-8"))
    assert again["perplexity"] == small_meta["score"]["perplexity"] and again["bleu"] == small_meta["score"]["bleu"]


def test_weights_that_are_no_run_are_not_exported_again(weights, tmp_path):
    with pytest.raises(SystemExit, match="is no run; only a run knows how its weights were made"):
        tester.main(["--weights", str(weights), "--export", str(tmp_path / "x.safetensors"), *CPU])


def test_each_line_of_a_pipe_has_a_line_whatever_is_in_it(weights, monkeypatch, capsys):
    odd = "I\u2028see\x0ba\x0ccat.\nTom\x85saw\x1cit.\r\n\nI see Zyzzyva."
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(odd.encode())))
    tester.main(["-", "--weights", str(weights), "--beam", "1", *CPU])
    said = capsys.readouterr()
    assert said.out.count("\n") == 4 and len(said.out.splitlines()) == 4 and said.out.split("\n")[2] == ""
    assert "sentence 4: unknown words: zyzzyva" in said.err.lower()


def test_lines_are_answered_as_they_come(monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read, "r"))
    answers = reading.texts_of(["-"])
    os.write(write, "一\n".encode())
    assert next(answers) == ["一"]  # before the second line is there
    os.write(write, "二\n三".encode())
    os.close(write)
    assert [line for some in answers for line in some] == ["二", "三"]


@pytest.mark.parametrize("word", ["letter.txt", "no/such/file", "pairs.TSV"])
def test_a_mistyped_file_is_no_sentence(weights, word):
    with pytest.raises(SystemExit, match="there is no such file"):
        tester.main([word, "--weights", str(weights), *CPU])


def test_the_tokenizer_of_bleu_follows_the_target_language(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    names = {language: metrics.tokenizer_for(language) for language in ("zh", "ja", "ko", "th", "")}
    assert names == {"zh": "zh", "ja": "char", "ko": "char", "th": "char", "": "13a"}
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: name)
    assert metrics.tokenizer_for("ja") == "ja-mecab" and metrics.tokenizer_for("ko") == "ko-mecab"
    assert "tok:13a" in metrics.bleu(["It isn't."], [["It isn't."]], "")[1]


# ---- pictures ---------------------------------------------------------------------------------------------------------

ROWS = [([" i", " see", "(end)"], ["我", "看", "(end)"], torch.eye(3))]


def test_without_a_font_numbers_stand_for_characters(tmp_path, monkeypatch, capsys, recwarn):
    monkeypatch.setattr(utils, "font_files", lambda: [matplotlib.font_manager.findfont("DejaVu Sans")])
    files = heatmap.draw(ROWS, tmp_path / "map.png")
    assert [path.name for path in files] == ["map.png", "map.txt"]
    assert files[1].read_text("utf-8") == "1 我  2 看  3 (end)\n"
    assert capsys.readouterr().err.count("no installed font") == 1
    assert not [w for w in recwarn if "missing from font" in str(w.message)]  # which is how matplotlib announces boxes


def test_dollars_and_pieces_are_drawn_as_they_are(tmp_path):
    heatmap.draw([(["▁$x_", "$^", "(end)"], ["a$", "b", "(end)"], torch.eye(3))], tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_a_map_of_a_translation(weights, tmp_path, capsys):
    tester.main(["I see a cat.", "--weights", str(weights), "--attention", str(tmp_path / "map.png"), *CPU])
    assert (tmp_path / "map.png").stat().st_size > 1000 and "map.png" in capsys.readouterr().err


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    state, meta = utils.load_weights(weights)
    wrong = {
        "other_arch": (state, meta | {"arch": "dot"}),
        "other_words": (state, meta | {"source": meta["source"] | {"words": meta["source"]["words"][:-1]}}),
        "other_sizes": (state, meta | {"sizes": meta["sizes"] | {"width": 32}}),
    }
    for name, (tensors, about) in wrong.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", {key: json.dumps(value) for key, value in about.items()})
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    for name, message in (
        ("other_arch", "says dot, but the weights in it are of another network"),
        ("other_words", "another vocabulary: .* source words are listed, and weights for"),
        ("other_sizes", "says general, but the weights in it are of another network"),
        ("bare", "not of a run of this chapter"),
        ("cut", "not a safetensors file that can be read"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["hello", "--weights", str(tmp_path / f"{name}.safetensors"), *CPU])


def test_wrong_flags_are_refused():
    for words, message in ((["--beam", "0"], "argument --beam"), (["--font", "no.ttf"], "--font no.ttf: no such file")):
        with pytest.raises(SystemExit, match=message):
            tester.main(["hello", *words])
