"""Tables of every kind, the split, the cache, the batches, and what they say of bad input."""

import hashlib
import http.server
import json
import threading
import urllib.request

import numpy as np
import pytest
import torch

import baselines
import datasets
import sample
import text

LETTERS = "春夏秋冬东西南北金木水火土日月星"


def reviews(count):
    """So many different texts, every other of them positive."""
    return [(f"第{i}条{LETTERS[i % 16]}{LETTERS[i // 16 % 16]}说{'好坏'[i % 2]}", str(1 - i % 2)) for i in range(count)]


def load(path, cache, **options):
    return datasets.load(str(path), tokenizer="char", cache=cache, **options)


def raw_of(corpus):
    return dict(zip(corpus.raw, [corpus.classes[i] for i in corpus.labels], strict=True))


# ---- rows of every kind -----------------------------------------------------------------------------------------------


def test_odd_rows_are_read_as_they_are(table, cache):
    odd = [
        ('他说:"好,很好"', "1"),
        ("第一行\n第二行,还有", "0"),
        ("😊👍🏽真棒", "1"),
        ("的了", "0"),
        ("长" * 10_000, "1"),
    ]
    corpus = load(table([*odd, ("", "1"), ("   ", "0"), ("没有标签", ""), ("多", "1", "列"), *reviews(60)]), cache)
    read = raw_of(corpus)
    assert {t: read[t] for t, _ in odd} == {t: ["negative", "positive"][int(label)] for t, label in odd}
    assert corpus.notes == ["skipped 4 rows without a text, a label or all columns, the first in line 8"]
    assert len(corpus.labels) == 65
    by_text = dict(zip(corpus.raw, corpus.lines.tolist(), strict=True))
    assert by_text["第一行\n第二行,还有"] == 3 and by_text["😊👍🏽真棒"] == 5  # the newline inside counts as a line


def test_only_stop_words_and_ten_thousand_characters_become_usable_numbers(table, cache):
    corpus = load(table([("的了", "0"), ("的 了", "0"), ("长短" * 5000, "1"), *reviews(200)]), cache)
    corpus.parts[:] = 0
    vocabulary = text.build_vocabulary(datasets.count_tokens(corpus, ["的", "了"]), 1000, 1)
    split = datasets.encode(corpus, "train", vocabulary, 50, ["的", "了"])
    assert "的" not in vocabulary
    which = {corpus.raw[row]: i for i, row in enumerate(split.rows)}
    assert datasets.gather(split, torch.tensor([which["的了"]]), 1).tolist() == [[text.UNK]]
    assert split.lengths.max() == 50 == split.lengths[which["长短" * 5000]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_forms_and_encodings(tmp_path, cache, encoding, kind):
    rows = reviews(80)
    if kind == "jsonl":
        lines = [json.dumps({"label": int(label), "content": t}, ensure_ascii=False) for t, label in rows]
    else:
        lines = [{"csv": ",", "tsv": "\t"}[kind].join(row) for row in [("评论", "标签"), *rows]]
    path = tmp_path / f"data.{kind}"
    path.write_bytes("\n".join(lines).encode(encoding))
    assert raw_of(load(path, cache)) == {t: ["negative", "positive"][int(label)] for t, label in rows}


def test_any_number_of_classes_and_columns_by_name(table, cache):
    rows = [(str(i), f"第{i}句话{LETTERS[i % 16]}", ("喜", "怒", "哀")[i % 3]) for i in range(90)]
    corpus = load(table(rows, header=("id", "body", "mood")), cache, text_column="body", label_column="mood")
    assert corpus.classes == sorted(["喜", "怒", "哀"]) and len(corpus.labels) == 90


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("review,label\n好,1\n".encode("utf-16-le"), "neither UTF-8 nor GB18030 text; save it as UTF-8"),
        (
            "review,label\n이 영화는 정말 재미있어요 다시 보고 싶다,1\n".encode("cp949"),
            "line 2: neither UTF-8 nor GB18030",
        ),
        (("review,label\n" + "這間餐廳的味道實在是太好了我們都很喜歡,1\n" * 9).encode("big5"), "neither UTF-8"),
        (("review,label\n" + "この店の料理はとても美味しかったです,1\n" * 9).encode("shift-jis"), "neither UTF-8"),
        (b"", "empty; expected a header"),
        ("好,1\n坏,0\n".encode(), "no text column, only 好, 1; name it with --text-column"),
        ("review,mark\n好,1\n".encode(), "no label column, only review, mark; name it with --label-column"),
        ("review,label\n好,1\n很好,1\n".encode(), "all 2 rows have the label '1'"),
        (b"review,label\n,1\n", "no usable row"),
        (b"review,label\nx,0\ny\n", "all 1 rows have the label"),
        ("review,label\n好,1\n坏,0\n".encode(), "its 2 rows are too few"),
    ],
)
def test_a_useless_table_is_refused_in_one_line(tmp_path, cache, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=message) as refusal:
        corpus = load(path, cache)
        for part in datasets.PARTS:
            datasets.encode(corpus, part, [*text.SPECIAL], 10)
    assert "\n" not in str(refusal.value)


def test_a_line_that_is_no_json_object_is_named(tmp_path, cache):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "好", "label": 1}\n["坏", 0]\n', "utf-8")
    with pytest.raises(SystemExit, match=r"bad.jsonl, line 2: not a JSON object"):
        load(path, cache)


# ---- the split --------------------------------------------------------------------------------------------------------


def test_repeats_are_kept_once_and_contradictions_left_out(table, cache):
    rows = reviews(60) + [("真的 很好!", "1"), ("真的 很好!", "1"), ("真的 很好！", "1"), ("转发", "1"), ("转发", "0")]
    corpus = load(table(rows), cache)
    assert corpus.raw.count("真的 很好!") == 1 and "转发" not in corpus.raw and len(corpus.labels) == 61
    assert corpus.notes == [
        "left out 2 rows that repeat another",
        "left out 2 rows whose text carries more than one label",
    ]


def test_stripped_emoticons_can_leave_contradictions_and_nothing(table, cache):
    rows = reviews(60) + [("转发[哈哈]", "1"), ("转发[泪]", "0"), ("[泪][泪]", "0")]
    kept, stripped = (load(table(rows), cache, emoticons=how) for how in text.EMOTICONS)
    assert len(kept.labels) == 63 and len(stripped.labels) == 60
    assert "[泪]" in kept.words and "[泪]" not in stripped.words
    assert sorted(stripped.notes) == [
        "left out 1 rows with nothing left after cleaning",
        "left out 2 rows whose text carries more than one label",
    ]


def test_no_text_crosses_splits_and_a_row_stays_where_it_is_without_its_emoticons(table, cache):
    rows = [(t + end, label) for t, label in reviews(300) for end in ("", "!", "[哈哈]", " http://t.cn/a")]
    kept, stripped = (load(table(rows), cache, emoticons=how) for how in text.EMOTICONS)
    keys = [{text.split_key(kept.raw[i]) for i in kept.rows(part)} for part in datasets.PARTS]
    assert all(keys) and not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    parts = [dict(zip(c.lines.tolist(), c.parts.tolist(), strict=True)) for c in (kept, stripped)]
    assert all(parts[0][line] == part for line, part in parts[1].items())


def test_the_vocabulary_is_of_training_texts_alone(table, cache):
    corpus = load(table(reviews(400)), cache)
    counts = datasets.count_tokens(corpus)
    train = [t for row in corpus.rows("train") for t in corpus.tokens(row)]
    assert sum(counts.values()) == len(train) and set(counts) == set(train)
    only_test = {t for row in corpus.rows("test") for t in corpus.tokens(row)} - set(train)
    assert only_test  # the numbers in 第..条
    assert not only_test & set(text.build_vocabulary(counts, 10_000, 1))


def test_limit_takes_training_texts_only(table, cache):
    corpus = load(table(reviews(300)), cache)
    others = [len(corpus.rows(part)) for part in ("val", "test")]
    datasets.limit_training(corpus, 20, seed=0)
    assert len(corpus.rows("train")) == 20 and [len(corpus.rows(part)) for part in ("val", "test")] == others


# ---- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_gives_the_same_corpus_and_is_not_used_for_other_data_or_settings(table, tmp_path, monkeypatch):
    path, cache = table(reviews(100)), tmp_path / "cache"
    first = load(path, cache)
    name = next(cache.glob("tokens-*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "tokenise", None)  # would fail if it were called
        again = load(path, cache)
    assert again.words == first.words and again.raw == first.raw and again.classes == first.classes
    assert all(
        np.array_equal(getattr(again, a), getattr(first, a)) for a in ("ids", "starts", "labels", "parts", "lines")
    )
    load(path, cache, emoticons="strip")
    path.write_bytes(path.read_bytes() + "新的一行,1\n".encode())
    assert "新的一行" in load(path, cache).raw
    assert len(list(cache.glob("tokens-*.npz"))) == 3
    name.write_bytes(name.read_bytes()[:500])
    assert load(table(reviews(100)), cache).raw == first.raw  # a damaged one is made anew
    assert datasets.read_cache(name, "x").raw == first.raw


@pytest.mark.parametrize("method", ["fork", "spawn"])  # Linux; Windows and macOS
def test_several_processes_segment_as_one_does(cache, monkeypatch, method):
    monkeypatch.setattr(datasets, "START_METHOD", method)
    rows = [(i, t, label) for i, (t, label) in enumerate(reviews(6000))]
    monkeypatch.setattr(datasets, "cores", lambda: 2)
    two = datasets.tokenise("x", rows, [], "jieba", "keep", cache)
    one = datasets.tokenise("x", rows, [], "jieba", "keep", cache, workers=1)
    assert two.words == one.words and np.array_equal(two.ids, one.ids) and np.array_equal(two.starts, one.starts)


# ---- batches ----------------------------------------------------------------------------------------------------------


def numbered(lengths):
    """A split whose text i has lengths[i] tokens, all of them i + 2."""
    lengths = torch.tensor(lengths)
    ids = torch.repeat_interleave(torch.arange(len(lengths)) + 2, lengths).int()
    return datasets.Split(ids, lengths.cumsum(0) - lengths, lengths, torch.arange(len(lengths)), None, len(lengths))


def test_an_epoch_shows_each_text_once_whole_and_in_an_order_of_its_own():
    lengths = [1 + i * 7 % 30 for i in range(40)]
    loader = datasets.BucketLoader(numbered(lengths), 10, torch.device("cpu"), train=True, seed=1, pool=2)
    orders = []
    for epoch in (0, 1, 0):
        loader.epoch = epoch
        orders.append([])
        for ids, labels, _ in loader:
            for row, i in zip(ids.tolist(), labels.tolist(), strict=True):
                assert row == [i + 2] * lengths[i] + [text.PAD] * (ids.shape[1] - lengths[i])
                orders[-1].append(i)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]


def test_buckets_leave_little_padding():
    rng = np.random.default_rng(0)
    split = numbered(rng.integers(1, 100, 2000).tolist())
    loader = datasets.BucketLoader(split, 20, torch.device("cpu"), train=True)
    padding = [float((ids == text.PAD).float().mean()) for ids, *_ in loader]
    assert np.mean(padding) < 0.05  # at random it would be about a half


def test_two_processes_share_an_epoch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for train, count in ((True, 40), (False, 41)):
        seen = []
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            loader = datasets.BucketLoader(numbered([3] * count), 10, torch.device("cpu"), train)
            seen += [i for _, labels, _ in loader for i in labels.tolist()]
        assert sorted(seen) == list(range(count))


# ---- where data come from ---------------------------------------------------------------------------------------------


def test_the_sample_comes_from_its_seed_and_counting_words_does_not_solve_it(cache):
    assert sample.make(50) == sample.make(50) != sample.make(50, seed=1)
    corpus = datasets.load("sample", cache=cache)
    assert corpus.classes == ["negative", "positive"] and len(corpus.labels) > 5500
    scores = {row["name"]: row["accuracy"] for row in baselines.run(corpus)}
    assert all(score < 0.70 for name, score in scores.items() if "single" in name), scores
    assert all(score < 0.85 for score in scores.values()), scores


@pytest.fixture
def server(tmp_path):
    """A folder on the web, on this machine alone -> (its URL, the folder)."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *_):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_port}", folder
    http_server.shutdown()
    http_server.server_close()


def test_download_goes_on_to_the_next_source_and_refuses_what_is_not_it(server, tmp_path, monkeypatch, capsys):
    url, folder = server
    (folder / "short.csv").write_text("label,review\n1,好\n", "utf-8")
    (folder / "whole.csv").write_text("label,review\n1,好\n0,坏\n", "utf-8")
    name, root = "weibo_senti_100k.csv", str(tmp_path / "data")
    monkeypatch.setattr(datasets, "WEIBO_ROWS", 2)
    monkeypatch.setitem(datasets.SOURCES, name, (f"{url}/gone.csv", f"{url}/short.csv"))
    with pytest.raises(
        SystemExit, match=r"short.csv: not the file expected \(what came has 1 rows, not 2\)\); put it into .* by hand"
    ) as refusal:
        datasets.get_file(name, root)
    kept = [path.name for path in (tmp_path / "data").iterdir()]
    assert "\n" not in str(refusal.value) and kept == [f"{name}.damaged"]
    monkeypatch.setitem(datasets.SOURCES, name, (f"{url}/gone.csv", f"{url}/short.csv", f"{url}/whole.csv"))
    assert datasets.get_file(name, root).read_text("utf-8").count("\n") == 3
    assert "whole.csv" in capsys.readouterr().err


def test_stop_words_are_checked_by_hash_or_come_from_your_file(server, tmp_path, monkeypatch, cache):
    url, folder = server
    (folder / "stop.txt").write_text("的\n了\n", "utf-8")
    monkeypatch.setitem(datasets.SOURCES, "hit_stopwords.txt", (f"{url}/stop.txt",))
    with pytest.raises(SystemExit, match="has not the SHA-256 84e5"):
        datasets.load_stop_words("hit", str(tmp_path))
    monkeypatch.setattr(datasets, "STOP_WORDS_SHA256", hashlib.sha256("的\n了\n".encode()).hexdigest())
    assert datasets.load_stop_words("hit", str(tmp_path)) == ["了", "的"]
    assert datasets.load_stop_words(str(folder / "stop.txt"), "") == ["了", "的"]
    assert datasets.load_stop_words("none", "") == []
    with pytest.raises(SystemExit, match="not none or hit"):
        datasets.load_stop_words("nowhere", "")


def test_without_network_auto_is_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*words, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert datasets.load("auto", str(tmp_path)).name == "sample"
    said = capsys.readouterr().err
    assert "SAMPLE" in said and "no route to host" in said and "weibo_senti_100k.csv" in said and str(tmp_path) in said
    with pytest.raises(SystemExit, match="could not download weibo_senti_100k.csv .*by hand"):
        datasets.load("weibo", str(tmp_path))
