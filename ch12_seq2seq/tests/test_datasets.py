"""Where pairs come from, how they are split and batched, and what is said of bad ones."""

import hashlib
import io
import re
import urllib.request
import zipfile

import pytest
import torch

import datasets
import sample
from text import END, PAD, START, UNKNOWN, Rules

PAIRS = sample.make(400)


BOTH = (Rules(language=""), Rules())


def codec(pairs=PAIRS, **kwargs):
    return datasets.Codec.of(pairs, BOTH, **({"at_least": 1, "max_length": 50} | kwargs))


def write(path, pairs=PAIRS, licence=""):
    path.write_text("".join(f"{a}\t{b}{licence}\n" for a, b in pairs), "utf-8")
    return path


# ---- the sample -------------------------------------------------------------------------------------------------------


def test_the_sample_is_made_from_its_seed_and_each_sentence_has_one_translation():
    assert sample.make(300) == sample.make(300) == PAIRS[:300] != sample.make(300, seed=1)
    many = sample.make(3000) + sample.make(3000, seed=1)
    assert len({english for english, _ in many}) == len(set(many))
    assert len(dict(sample.make(3000))) == 3000


def test_the_sample_has_what_makes_translation_hard():
    """Word order, measure words, words without a counterpart: each visible in the pairs."""
    pairs = dict(sample.make(3000))
    for english, chinese in pairs.items():
        if "yesterday" in english:
            assert english.endswith("yesterday.") and chinese.index("昨天") <= 4  # after who, before everything else
        if "two books" in english:
            assert "两本书" in chinese
        if "did not" in english:
            assert "没" in chinese and "了" not in chinese.replace("丢了", "")
    assert sum("two books" in english for english in pairs) > 1


# ---- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("licence", ["", "\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (x) & #2 (y)"])
def test_files_of_two_and_three_columns(tmp_path, licence):
    data = datasets.load(str(write(tmp_path / "mine.tsv", licence=licence)))
    assert data.name == "mine" and sorted(sum(data.splits.values(), [])) == sorted(PAIRS)


def test_useless_lines_are_named_counted_and_skipped(tmp_path, capsys):
    path = write(tmp_path / "mine.tsv", [("no tab", "x"), ("one", ""), ("", "two"), *PAIRS])
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(["only one side", "", *lines[1:]]), "utf-8")
    data = datasets.load(str(path))
    said = capsys.readouterr().out
    assert "mine.tsv, line 1: skipped, without a tab" in said and "line 3: skipped, with an empty side" in said
    assert data.left_out == {"without a tab": 1, "with an empty side": 2}
    assert sum(map(len, data.splits.values())) == len(PAIRS)


def test_files_that_are_no_pairs_are_refused(tmp_path):
    (tmp_path / "latin.tsv").write_bytes("eins\tone\nzwölf\ttwelve".encode("latin-1"))
    (tmp_path / "empty.tsv").write_text("")
    for name, message in (
        ("latin.tsv", "latin.tsv, line 2: neither UTF-8 nor GB18030"),
        ("empty.tsv", "empty.tsv: no line of it is a pair"),
        ("gone.tsv", "gone.tsv: not cmn-eng .* and there is no file of that name"),
    ):
        with pytest.raises(SystemExit, match=message):
            datasets.load(str(tmp_path / name))
    with pytest.raises(SystemExit, match="3 pairs leave nothing for"):
        datasets.load(str(write(tmp_path / "few.tsv", PAIRS[:3])))


def test_a_language_by_name_comes_from_its_archive(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "cmn-eng.zip", "w") as archive:
        archive.writestr("_about.txt", "about")
        archive.writestr("cmn.txt", "".join(f"{a}\t{b}\tlicence\n" for a, b in PAIRS))
    data = datasets.load("auto", str(tmp_path))
    assert data.name == "cmn-eng" and (tmp_path / "cmn.txt").exists()
    assert data.sha256 == hashlib.sha256((tmp_path / "cmn.txt").read_bytes()).hexdigest()
    assert "another edition" in capsys.readouterr().out
    (tmp_path / "deu-eng.zip").write_bytes((tmp_path / "cmn-eng.zip").read_bytes()[:1000])
    with pytest.raises(SystemExit, match="deu-eng.zip: no archive with a whole deu.txt"):
        datasets.load("deu-eng", str(tmp_path))


class Answer(io.BytesIO):
    """What urlopen gives."""

    def __init__(self, body, size):
        super().__init__(body)
        self.status = 200
        self.headers = {"Content-Length": str(size)}


def test_download(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cmn.txt", "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    body, asked = packed.getvalue(), []

    def urlopen(request, timeout):
        asked.append(request.full_url)
        return Answer(body if len(asked) > 1 else body[:500], len(body))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(SystemExit, match="it broke off after 500 of .* bytes.*put it into .* by hand"):
        datasets.load("cmn-eng", str(tmp_path / "data"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cmn-eng.zip.part"]
    assert len(sum(datasets.load("cmn-eng", str(tmp_path / "data")).splits.values(), [])) == len(PAIRS)
    assert asked == ["https://www.manythings.org/anki/cmn-eng.zip"] * 2


def test_without_network_auto_is_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(request, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert datasets.load("auto", str(tmp_path)).name == "sample"
    said = capsys.readouterr().err
    assert "SAMPLE" in said and "no route to host" in said and "cmn-eng.zip" in said and str(tmp_path) in said


def test_tatoebas_export_with_sentence_numbers_and_numbers_instead_of_sentences(tmp_path, capsys):
    path = tmp_path / "export.tsv"
    path.write_text("".join(f"{1000 + i}\t{a}\t{9000 + i}\t{b}\n" for i, (a, b) in enumerate(PAIRS)), "utf-8")
    data = datasets.load(str(path))
    assert (
        sorted(sum(data.splits.values(), [])) == sorted(PAIRS)
        and "sentence numbers in columns" in capsys.readouterr().out
    )
    path.write_text("".join(f"{1000 + i}\t{a}\t{b}\n" for i, (a, b) in enumerate(PAIRS)), "utf-8")
    with pytest.raises(SystemExit, match="column 1 holds numbers, not sentences"):
        datasets.load(str(path))


def test_two_files_correspond_line_by_line(tmp_path):
    for i, name in enumerate(("pairs.en", "pairs.zh")):
        (tmp_path / name).write_text("".join(f"{pair[i]}\n" for pair in PAIRS), "utf-8")
    data = datasets.load([str(tmp_path / "pairs.en"), str(tmp_path / "pairs.zh")])
    assert data.name == "pairs" and sorted(sum(data.splits.values(), [])) == sorted(PAIRS)
    (tmp_path / "pairs.zh").write_text("一行\n", "utf-8")
    with pytest.raises(SystemExit, match="pairs.en has 400 lines, .*pairs.zh 1: they must correspond"):
        datasets.load([str(tmp_path / "pairs.en"), str(tmp_path / "pairs.zh")])


def test_only_line_feeds_end_lines_and_languages_are_told_by_their_letters(tmp_path):
    pairs = [(f"{a[:-1]}\u2028again\x0b.", f"{b[:-1]}の図書館。") for a, b in PAIRS]
    data = datasets.load(str(write(tmp_path / "mine.tsv", pairs)))
    assert sum(map(len, data.splits.values())) == len(PAIRS) and [r.language for r in data.rules] == ["", "ja"]
    assert all("図書館" in target for target in dict(data.splits["train"]).values())


# ---- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_no_source_sentence_stands_in_two_splits(tmp_path, reverse):
    """Nor in another spelling of it; and all its translations stay together."""
    pairs = [(english.upper(), chinese[:-1]) for english, chinese in PAIRS] + [(a, "也" + b) for a, b in PAIRS] + PAIRS
    splits = datasets.load(str(write(tmp_path / "mine.tsv", pairs)), reverse=reverse, how="source").splits
    keys = [{re.sub(r"\W", "", source.lower()) for source, _ in rows} for rows in splits.values()]
    assert all(keys) and not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert ("书" in "".join(source for source, _ in splits["train"])) == reverse


@pytest.mark.parametrize("reverse", [False, True])
def test_in_a_strict_split_no_sentence_of_either_side_stands_in_two_parts(tmp_path, reverse):
    pairs = [(f"{english} ({i % 3})", chinese) for i, (english, chinese) in enumerate(PAIRS * 3)] + [
        (a, "也" + b) for a, b in PAIRS
    ]
    data = datasets.load(str(write(tmp_path / "mine.tsv", pairs)), reverse=reverse)
    for side in (0, 1):
        keys = [{datasets.key(pair[side]) for pair in rows} for rows in data.splits.values()]
        assert all(keys) and not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    loose = datasets.load(str(write(tmp_path / "mine.tsv", pairs)), how="source").splits
    assert {datasets.key(b) for _, b in loose["train"]} & {datasets.key(b) for _, b in loose["test"]}


def test_a_sentence_keeps_its_split_when_others_come(tmp_path):
    part = {pair: name for name, rows in datasets.load(str(write(tmp_path / "a.tsv"))).splits.items() for pair in rows}
    more = datasets.load(str(write(tmp_path / "b.tsv", sample.make(900, seed=5) + PAIRS))).splits
    assert all(pair in more[name] for pair, name in part.items())


def test_pairs_that_become_the_same_count_once(tmp_path):
    pairs = [*PAIRS, ("We go!", "我们去！"), ("We go!", "我們去!"), ("We go!", "咱们走！")]
    data = datasets.load(str(write(tmp_path / "mine.tsv", pairs)))
    assert data.left_out["double after normalising"] == 1
    assert datasets.by_source(sum(data.splits.values(), []))["We go!"] == ["我们去！", "咱们走！"]


# ---- to the network ---------------------------------------------------------------------------------------------------


def test_unknown_tokens_and_long_sentences_are_encoded():
    short = codec(max_length=6)
    numbers = short.encode_source("I bought a zyzzyva " + "very " * 2000)
    assert len(numbers) == 7 and numbers[3] == UNKNOWN and numbers[-1] == END
    assert short.encode_target("我𠮷")[::3] == [START, END] and short.encode_target("我𠮷")[2] == UNKNOWN
    assert short.too_long("a " * 2000) and not short.too_long("a")
    assert datasets.not_too_long([("a " * 2000, "b"), ("a", "b")], short, 6) == [("a", "b")]


def test_a_source_is_lowered():
    assert codec().encode_source("I Bought A Book.") == codec().encode_source("i bought a book.")
    assert UNKNOWN in codec().encode_target("I BOUGHT") and " bought" in codec().source.words


def test_a_codec_survives_its_metadata():
    first = codec()
    again = datasets.Codec.from_metadata(first.metadata())
    assert again.metadata() == first.metadata() and again.encode_target(PAIRS[0][1]) == first.encode_target(PAIRS[0][1])


def test_an_epoch_has_each_pair_once_in_batches_of_like_length():
    own = codec()
    batches = datasets.TokenBatches(PAIRS, own, 200, torch.device("cpu"), seed=1)
    seen, orders = [], []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        rows = list(batches)
        orders.append([target[0].tolist() for _, target, _ in rows])
        seen.append(sorted(tuple(t for t in row if t != PAD) for _, target, _ in rows for row in target.tolist()))
    assert seen[0] == seen[1] == sorted(tuple(own.encode_target(target)) for _, target in PAIRS)
    assert orders[0] == orders[2] != orders[1]
    assert all(max(source.shape[1], target.shape[1]) * len(target) <= 200 for source, target, _ in rows)
    assert sum(tokens for *_, tokens in rows) == sum(len(row) - 1 for row in seen[0])
    padding = sum((target == PAD).sum() for _, target, _ in rows) / sum(target.numel() for _, target, _ in rows)
    assert padding < 0.08


def test_batches_look_at_the_sources_length_too():
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 40, (3000, 2), generator=rng)
    lengths[:, 1] = lengths[:, 1] % 6 + 4  # few different targets, many different sources
    pairs = [(" ".join("a" * s), "我" * t) for s, t in lengths.tolist()]
    epochs = []
    batches = datasets.TokenBatches(pairs, codec(pairs), 500, torch.device("cpu"), seed=1)
    for batches.epoch in (0, 1):
        rows = list(batches)
        padding = sum((s == PAD).sum() for s, *_ in rows) / sum(s.numel() for s, *_ in rows)
        assert padding < 0.1 and sum((t == PAD).sum() for _, t, _ in rows) / sum(t.numel() for _, t, _ in rows) < 0.05
        epochs.append({tuple(sorted(numbers.tolist())) for numbers in batches.batches})
    assert len(epochs[0] & epochs[1]) < len(epochs[0]) / 2  # it is not always the same ones that meet


def test_two_processes_share_each_batch(monkeypatch):
    whole = list(datasets.TokenBatches(PAIRS[:301], codec(), 20, torch.device("cpu"), seed=1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(list(datasets.TokenBatches(PAIRS[:301], codec(), 20, torch.device("cpu"), seed=1)))
    assert len(shares[0]) == len(shares[1]) < len(whole)  # at least a sentence for each, so fewer and larger ones here
    for (_, first, tokens), (_, second, same) in zip(*shares, strict=True):
        assert len(first) and len(second) and first.shape[1] == second.shape[1]
        assert tokens == same == sum((side[:, 1:] != PAD).sum() for side in (first, second))
