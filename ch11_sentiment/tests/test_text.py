"""Cleaning, segmentation and vocabulary."""

from collections import Counter

import pytest

import text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("太好了！！！！！ＡＢＣ", "太好了!!!abc"),
        ("<br/>不错&amp;便宜 http://t.cn/zOx 看", "不错&便宜 看"),
        ("回复@小明_1:谢谢//@Ann-B: 嗯", "回复@:谢谢//@: 嗯"),
        ("@商家服务太差了垃圾", "@商家服务太差了垃圾"),
        ("@商家服务太差了垃圾 ", "@商家服务太差了垃圾"),
        ("转发 @小明 你看", "转发 @ 你看"),
        ("100000块 1000块 哈哈哈哈哈", "100000块 1000块 哈哈哈"),
        ("a<b and c>d <font color=red>好</font><sina:link src='x'/>", "a<b and c>d 好"),
        ("10m² ½", "10m² ½"),
        ("  多个\n空白\t和\u200b零宽\ufeff ", "多个 空白 和零宽"),
        ("1 < 2 > 0", "1 < 2 > 0"),
        ("\n\t ", ""),
    ],
)
def test_cleaning_brings_texts_into_one_form(raw, cleaned):
    assert text.clean(raw) == cleaned


def test_emoticons_are_stripped_and_other_brackets_and_emoji_are_not():
    raw = "好[哈哈][good]吃😊[这不是一个表情因为太长了]【标题】[ 空 ]"
    assert text.clean(raw) == raw.lower()
    assert text.clean(raw, "strip") == "好 吃😊[这不是一个表情因为太长了]【标题】[ 空 ]"


def test_both_tokenizers_keep_an_emoticon_whole(cache):
    cleaned = text.clean("今天心情很好[哈哈]I don't know 42")
    assert text.segment(cleaned, "char", cache) == [*"今天心情很好", "[哈哈]", "i", "don't", "know", "42"]
    words = text.segment(cleaned, "jieba", cache)
    assert words[:5] == ["今天", "心情", "很", "好", "[哈哈]"] and " " not in words


def test_words_of_other_alphabets_and_their_marks_stay_whole():
    cleaned = text.clean("Ça va café хорошо हिन्दी ดีมาก")
    assert text.segment(cleaned, "char", "unused") == ["ça", "va", "café", "хорошо", "हिन्दी", "ดี", "ม", "า", "ก"]


def test_texts_that_differ_in_form_or_emoticons_are_in_one_split():
    for other in ("今天,好开心！", "今天好开心[哈哈]", "今天 好开心[泪][泪]", "今天好开心 http://t.cn/x"):
        assert text.split_key(other) == text.split_key("今天好开心")
        assert text.split_of(other) == text.split_of("今天好开心")
    assert text.split_key("[泪]") != text.split_key("[哈哈]") != ""


def test_about_a_tenth_of_all_texts_validates_and_a_tenth_tests():
    counts = Counter(text.split_of(f"第{i}条") for i in range(5000))
    assert 0.78 < counts["train"] / 5000 < 0.82 and 0.08 < counts["val"] / 5000 < 0.12


def test_jieba_is_silent_and_its_cache_is_where_it_was_told(run_script, tmp_path):
    done = run_script(
        "-W", "error", "-c", f"import text; print(text.segment('我爱北京', 'jieba', {str(tmp_path / 'c')!r}))"
    )
    assert done.stdout == "['我', '爱', '北京']\n" and done.stderr == ""
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["jieba.cache"]


def test_the_vocabulary_has_the_commonest_first_and_clause_ends_at_fixed_places():
    counts = Counter({"好": 5, "坏": 5, "。": 9, "稀": 1, "天": 3})
    vocabulary = text.build_vocabulary(counts, max_size=100, min_count=2)
    assert vocabulary[: len(text.SPECIAL)] == list(text.SPECIAL)
    assert vocabulary[len(text.SPECIAL) :] == ["坏", "好", "天"]  # of equal counts, in the order of their code points
    assert len(text.build_vocabulary(counts, max_size=len(text.SPECIAL) + 1, min_count=1)) == len(text.SPECIAL) + 1


def test_numbers_of_tokens():
    vocabulary = [*text.SPECIAL, "好", "的"]
    numbers = text.numbers_of(vocabulary, ["好", "的", "没见过", "。"], stop_words=["的"])
    assert numbers == [len(text.SPECIAL), -1, text.UNK, 2]
