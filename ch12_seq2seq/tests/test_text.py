"""Normalising, cutting and numbering; the text comes back whole."""

import pytest

from text import SPECIAL, UNKNOWN, Rules, Vocabulary, join


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
