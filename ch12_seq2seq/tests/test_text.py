"""Normalising, cutting and numbering; the text comes back whole."""

import json

import pytest

from text import SPECIAL, UNKNOWN, Rules, Side, Vocabulary, join, language_of


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("我們不去，Tom 也不去 !", "我们不去，Tom也不去！"),
        ("ＡＢＣ，ｄｅｆ", "ABC,def"),  # full width, and no Chinese
        ("你好吗?", "你好吗？"),
        ("他走了.", "他走了。"),
        ("他说:“好”.", '他说："好"。'),
        ("它要5,000元,在2:30.", "它要5,000元，在2:30。"),  # a number keeps its marks
        ("I can’t — it’s “late”.", "I can't - it's \"late\"."),
        ("  a\u200b\t b \u00a0c  ", "a b c"),
        ("Déjà vu", "Déjà vu"),
        ("De\u0301ja\u0300 vu", "Déjà vu"),
        (" \u200b ", ""),
    ],
)
def test_one_form_of_each_thing(raw, normal):
    assert Rules().normalise(raw) == normal
    assert Rules().normalise(normal) == normal


def test_script_as_is_stays_traditional():
    assert Rules(script="as-is").normalise("我們不去。") == "我們不去。"


@pytest.mark.parametrize("chinese", ["chars", "jieba"])
@pytest.mark.parametrize(
    "text",
    [
        "I can't, Tom's \"here\" (at 2:30).",
        "我们不去，Tom Smith也不去！",
        "Ça va? Größe 12",
        "今日は、トムさん。",
        "안녕 하세요",
        "I♥NY 🙂",
    ],
)
def test_tokens_join_to_the_text_again(chinese, text):
    rules = Rules(chinese)
    text = rules.normalise(text)
    assert join(rules.cut(text)) == text


def test_chinese_is_cut_into_characters_or_words():
    assert Rules().cut("我们坐火车。") == ["我", "们", "坐", "火", "车", "。"]
    assert Rules("jieba").cut("我们坐火车。") == ["我们", "坐火车", "。"]
    assert Rules().cut("Cats don't.", lower=True) == [" cats", " don", "'t", "."]


def test_vocabulary_keeps_what_is_frequent_and_marks_the_rest():
    vocabulary = Vocabulary.of([["b", "a", "b"], ["a", "c"], ["b"]], at_least=2)
    assert vocabulary.words == [*SPECIAL, "b", "a"]
    assert vocabulary.encode(["a", "c", "b"]) == [5, UNKNOWN, 4]
    assert vocabulary.decode([5, UNKNOWN]) == ["a", "<unk>"]


# ---- other languages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("東京都の図書館", [*"東京都の図書館"]),
        ("हिन्दी में लिखो", [" हिन्दी", " में", " लिखो"]),
        ("ดีมาก ครับ", ["ดี", "ม", "า", "ก", " ค", "รั", "บ"]),
        ("عَرَبِيّ", [" عَرَبِيّ"]),
        ("می\u200cخواهم", [" می\u200cخواهم"]),
        ("x² = ½", [" x", "²", " =", " ½"]),
        ("안녕 하세요", [" 안녕", " 하세요"]),
        ("soft\xadhyphen", [" softhyphen"]),
    ],
)
def test_marks_belong_to_their_letters_and_nothing_is_made_chinese(text, tokens):
    rules = Rules(language=language_of([text]))
    text = rules.normalise(text)
    assert rules.cut(text) == tokens and join(tokens) == text


def test_the_language_of_a_side():
    texts = {
        "zh": ["我们不去。", "Tom走了。"],
        "ja": ["東京都", "図書館へ行きます"],
        "ko": ["안녕 하세요"],
        "th": ["ดีมาก"],
    }
    texts |= {"": ["We go.", "Größe"]}
    assert {name: language_of(sentences) for name, sentences in texts.items()} == {name: name for name in texts}
    assert Rules(language="ja").normalise("東京都") == "東京都" and Rules().normalise("東京の図書館") == "東京の図書館"


def test_subwords_join_to_the_text_again_and_are_kept_in_the_metadata():
    texts = [f"The little {animal} sees {n} {animal}s." for animal in ("cat", "dog", "Bird") for n in range(30)]
    side = Side.of(texts, Rules(language=""), lower=False, at_least=1, subwords=60)
    assert side.words[:4] == SPECIAL and len(side) <= 60 and len(side.cut(texts[0])) > 5
    again = Side.from_metadata(json.loads(json.dumps(side.metadata())))
    for text in (texts[0], "The Bird sees the cats."):
        assert side.join(side.cut(text)) == text and again.encode(again.cut(text)) == side.encode(side.cut(text))
    lowered = Side.of(texts, Rules(language=""), lower=True, at_least=1, subwords=60)
    assert lowered.cut("THE CAT") == lowered.cut("the cat")
    assert [word for _, word in lowered.unknown("the cat Ωx")][0].startswith("Ω")
    with pytest.raises(SystemExit, match="--subwords 5"):
        Side.of(texts, Rules(), lower=False, at_least=1, subwords=5)
