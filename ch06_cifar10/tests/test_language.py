"""The programs in Chinese: which language is chosen, and how a finished message finds its translation."""

import os

import pytest

import language
import utils

CATALOGUE = r"""
msgid ""
msgstr ""
"Language: zh_CN\n"

msgid "wrote {0}: {1} pictures"
msgstr "{1} 张图片已写入 {0}"

msgid "error: "
msgstr "错误："

msgid "no architecture {0}; there are: {1}"
msgstr "没有网络 {0}；可用的有：{1}"

msgid "{0} (--help lists the flags)"
msgstr "{0}（--help 列出所有选项）"

msgid "argument {0}: {1}"
msgstr "参数 {0}：{1}"

msgid "{0}: must be {1}"
msgstr "{0}：必须是{1}"

msgid "{0} from {1} to {2}"
msgstr "{1} 到 {2} 之间的{0}"

msgid "{0} training, {1} validation pictures"
msgstr "训练图片 {0} 张，验证图片 {1} 张"

msgid "{0} ({1} numbers) on {2}: {3}"
msgstr "{0}（{1} 个数），数据 {2}：{3}"

msgid "object {0} on {1}"
msgstr "{1} 上的目标 {0}"

msgid "a box outside the image: {0}"
msgstr "框在图片之外：{0}"

msgid "data"
msgstr "数据"

msgid "a whole number"
msgstr "整数"

msgid "two\n"
"lines"
msgstr "两\n行"

#, fuzzy
msgid "an old one"
msgstr "旧的"
"""


@pytest.fixture
def chinese(tmp_path, monkeypatch):
    path = tmp_path / "zh_CN" / "LC_MESSAGES" / "messages.po"
    path.parent.mkdir(parents=True)
    path.write_text(CATALOGUE, "utf-8")
    monkeypatch.setattr(language, "LOCALE", tmp_path)
    monkeypatch.setenv("LANGUAGE", "zh_CN")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_the_systems_language_is_taken(variables, expected, monkeypatch):
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language.current() == expected


@pytest.mark.parametrize(
    ("words", "expected"), [(["--lang", "en"], "en"), (["x", "--lang=zh"], "zh"), (["--lang"], "zh")]
)
def test_a_flag_decides_before_the_system(words, expected, chinese, monkeypatch):
    monkeypatch.setenv("LANGUAGE", os.environ["LANGUAGE"])  # put back afterwards
    language.choose(words)
    assert language.current() == expected


def test_values_stand_where_the_translation_wants_them(chinese):
    assert language.translated("wrote a b.csv: 12 pictures") == "12 张图片已写入 a b.csv"
    assert language.translated("two\nlines") == "两\n行"
    assert language.translated("wrote data: 3 pictures") == "3 张图片已写入 data", "a folder's name is no message"


def test_a_part_of_a_message_is_not_taken_for_the_whole(chinese):
    said = language.translated("vgg (9 numbers) on sample: 256 training, 64 validation pictures")
    assert said == "vgg（9 个数），数据 sample：训练图片 256 张，验证图片 64 张"


def test_what_is_wrong_with_a_file_is_said_behind_its_name(chinese):
    assert language.translated("a: b.csv: wrote c: 2 pictures") == "a：b.csv：2 张图片已写入 c"
    assert language.translated("a: b.csv: nothing like it") == "a: b.csv: nothing like it"
    fault = "object 4 on 1.jpg: a box outside the image: [9, 9, 3, 4]"
    assert language.translated(fault) == "1.jpg 上的目标 4：框在图片之外：[9, 9, 3, 4]"


def test_what_has_no_translation_stays_english(chinese, monkeypatch):
    assert [language.translated(text) for text in ("an old one", "nothing like it", "12")] == [
        "an old one",
        "nothing like it",
        "12",
    ]
    monkeypatch.setenv("LANGUAGE", "en")
    assert language.translated("wrote a: 2 pictures") == "wrote a: 2 pictures"


def test_errors_of_flags_are_said_in_chinese_with_the_values_in_them(chinese):
    parser = utils.Parser()
    parser.add_argument("--share", type=utils.Number(int, 0, 9))
    with pytest.raises(SystemExit) as error:
        parser.parse_args(["--share", "12", "--lang", "zh"])
    assert str(error.value) == "错误：参数 --share：'12'：必须是0 到 9 之间的整数（--help 列出所有选项）"


def test_what_is_said_is_translated(chinese, capsys):
    utils.say("no architecture 'net'; there are: a, b")
    utils.warn("wrote x: 1 pictures")
    said = capsys.readouterr()
    assert said.out == "没有网络 'net'；可用的有：a, b\n" and "!  1 张图片已写入 x\n" in said.err
    assert vars(utils.Parser().parse_args([])) == {}, "--lang is no argument of the run"
