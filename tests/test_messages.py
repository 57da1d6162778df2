"""The catalogues of the programs' messages are up to date, and each translation has the values of its message.

pytest tests/test_messages.py
"""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import messages  # noqa: E402

CHAPTERS = sorted(path.parent for path in messages.ROOT.glob("ch*_*/language.py"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)
def test_catalogues(chapter):
    assert messages.faults(chapter) == []


def test_how_many_are_translated():
    counts = {chapter.name: len(messages.missing(chapter)) for chapter in CHAPTERS}
    print("messages without a translation:", counts)
    assert sum(counts.values()) <= MOST_MISSING, counts


MOST_MISSING = 20  # of all chapters together


def test_a_template_has_places_for_the_values():
    node = ast.parse('f"{path}: no {kind!r}; " f"there are: {\', \'.join(names)}"', mode="eval").body
    assert messages.template(node) == ("{0}: no {1}; there are: {2}", ["path", "kind", "', '.join(names)"])


def test_messages_are_found_where_they_are_said(tmp_path):
    code = 'def f():\n    fail("one" if a else f"two {b}")\n    parser.add_argument("--x", help="three")\n    print("four")\n'
    (tmp_path / "a.py").write_text(code)
    assert [text for text, *_ in messages.messages_of(tmp_path / "a.py")] == ["one", "two {0}", "three"]


def test_a_sum_of_strings_is_no_message(tmp_path):
    lines = ("say(f'{a} of' + f' {b}')", "say(f'{a} of {b}')", "say(rows + more)", "fail('no file' + name * 2)")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "a.py").write_text("\n".join(lines))
    assert [line.split(", ")[1][:6] for line in messages.sums(tmp_path)] == ["line 1", "line 4"]


@pytest.mark.parametrize(
    "line",
    [
        "faults.append(f'{name}: too large')",
        "found.faults.append((f'row[{i}]', f'{name}: too large'))",
        "faults += [f'{name}: too large' for name in names]",
        "fault = f'{name}: too large'",
        "return [] if good else [f'{name}: too large']",
        "return None, f'{name}: too large'",
    ],
)
def test_faults_in_data_are_found_where_they_are_noted(line, tmp_path):
    (tmp_path / "a.py").write_text(f"def faults_of(name):\n    {line}\n")
    assert [text for text, *_ in messages.messages_of(tmp_path / "a.py")] == ["{0}: too large"]


def test_a_changed_message_keeps_its_old_translation_as_doubtful(tmp_path):
    code = "def f():\n    fail('the file {} cannot be read at all')\n"
    (tmp_path / "a.py").write_text(code.replace("{}", "x"))
    path = messages.catalogue(tmp_path)
    path.parent.mkdir(parents=True)
    first = messages.renewed(tmp_path)
    first.find("the file x cannot be read at all").msgstr = "读不了"
    path.write_text(messages.text_of(first), "utf-8")
    assert messages.renewed(tmp_path).find("the file x cannot be read at all").msgstr == "读不了"
    (tmp_path / "a.py").write_text(code.replace("{}", "y"))
    entry = messages.renewed(tmp_path).find("the file y cannot be read at all")
    assert entry.msgstr == "读不了" and entry.fuzzy and entry.msgid in messages.missing(tmp_path)
