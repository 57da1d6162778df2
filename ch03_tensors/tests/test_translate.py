"""The Chinese texts: complete lesson by lesson, set as in print, and never older than the English ones."""

import re

import polib
import pytest

from book import translate
from book.notebook import make_notebook
from book.pieces import Output, read
from book.translate import catalogue, renewed, state
from lessons import MODULES, __main__

HAN = r"[\u3400-\u9fff]"
TRANSLATED = [entry for entry in catalogue() if entry.msgstr]


def test_the_catalogue_holds_the_paragraphs_of_the_lessons_as_they_are_now():
    now = renewed(catalogue(), translate.all_texts())
    assert [(e.msgid, e.msgstr) for e in now] == [(e.msgid, e.msgstr) for e in catalogue()], (
        "a paragraph has changed: python -m lessons --catalogue, then look at what is marked fuzzy"
    )


def test_whole_lessons_are_translated():
    """A page half in Chinese is worse than one in English."""
    counts = state()
    assert set(counts) == {"", *MODULES}
    halves = {name: f"{done} of {total}" for name, (done, total) in counts.items() if done not in (0, total)}
    assert not halves
    assert all(done for done, _ in counts.values()), "all lessons are in Chinese"


def test_a_translation_has_the_same_code_and_the_same_numbers():
    for entry in TRANSLATED:
        for part in (r"`[^`]+`", r"\{\w+\}", r"\d+\.\d+"):
            assert sorted(re.findall(part, entry.msgid)) == sorted(re.findall(part, entry.msgstr)), entry.msgid


def test_chinese_is_set_as_in_print():
    """Full-width marks beside Chinese, and a space between Chinese and Latin letters or digits."""
    for entry in TRANSLATED:
        text = re.sub(r"`[^`]*`", " ", entry.msgstr)
        faults = re.findall(rf"{HAN}[,;:!?()]|[,;:!?(]{HAN}|{HAN}\.(?!\w)", text)
        faults += re.findall(rf"{HAN}[A-Za-z0-9]|[A-Za-z0-9%]{HAN}", text)
        assert not faults, (faults, entry.msgstr)
        assert re.search(HAN, entry.msgstr), entry.msgstr


def test_a_changed_paragraph_shows_english_and_keeps_its_old_translation_marked():
    old = polib.POFile()
    old += [
        polib.POEntry(msgid="Clamping moves values.", msgstr="裁剪移动数值。"),
        polib.POEntry(msgid="Gone.", msgstr="没了"),
    ]
    new = renewed(old, {"a": ["Clamping moves values far outside.", "Something else entirely, and long."]})
    changed, other = new
    assert changed.fuzzy and changed.msgstr == "裁剪移动数值。" and changed.previous_msgid == "Clamping moves values."
    assert not other.msgstr and len(new) == 2
    assert not translate.is_good(changed) and translate.is_good(old[0])
    again = renewed(new, {"a": ["Clamping moves values far outside."]})
    assert again[0].fuzzy, "until somebody has looked at it"


def test_updating_writes_the_catalogue_and_says_how_much_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(translate, "CATALOGUE", tmp_path / "zh" / "lessons.po")
    assert __main__.main(["--catalogue"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^indexing +0 of +19 paragraphs$", printed, re.M) and "0 to be looked at again" in printed
    assert len(catalogue()) > 500
    translate.translations.cache_clear()


@pytest.mark.parametrize("said, shown", [("zh_CN.UTF-8", "损失要从每一行"), ("de_DE.UTF-8", "A loss needs")])
def test_the_default_language_is_the_systems(said, shown, monkeypatch, empty_folder, capsys):
    monkeypatch.setenv("LANGUAGE", said)
    assert __main__.main(["gather"]) == 0 and shown in capsys.readouterr().out


def test_playing_in_chinese(empty_folder, capsys):
    assert __main__.main(["gather", "--lang", "zh"]) == 0
    printed = capsys.readouterr().out
    assert "损失要从每一行取出正确类别的分数" in printed and "A loss needs" not in printed
    assert ">>> gather_rows(logits, torch.tensor([1, 0]))\n    tensor([0.7000, 0.5000])" in printed


def test_a_notebook_in_chinese():
    nothing = {section.name: [Output("")] * 50 for section in read("indexing").sections}
    first, *rest = make_notebook("indexing", "zh", nothing).cells
    assert first.source.startswith("# 张量裁剪、索引与数据筛选\n") and "在终端中播放" in first.source
    assert not [cell.source for cell in rest if cell.cell_type == "markdown" and not re.search(HAN, cell.source)]
