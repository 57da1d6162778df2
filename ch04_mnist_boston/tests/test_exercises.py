"""The exercises: texts and hints in both languages, and checkers that know right from wrong.

This file is the same, byte for byte, in every chapter (`nox -s lint` checks that).
"""

import shutil

import pytest

from exercises import __main__ as exercises

each = pytest.mark.parametrize("path", exercises.PATHS, ids=lambda path: path.stem)


@each
def test_texts_and_hints_are_in_both_languages(path):
    checks = exercises.checks_of(path)
    for texts in (checks.TITLE, checks.TEXT, checks.HINTS):
        assert set(texts) == {"en", "zh"} and all(texts.values())
    assert len(checks.HINTS["en"]) == len(checks.HINTS["zh"]) >= 2
    assert f"`{checks.NAME}(" in checks.TEXT["en"] and f"`{checks.NAME}(" in checks.TEXT["zh"]


@each
def test_the_solution_is_right(path):
    assert exercises.fault(exercises.FOLDER / "solutions" / path.name, exercises.checks_of(path)) is None


@each
def test_the_file_to_edit_is_not_solved(path):
    if "raise NotImplementedError" not in path.read_text("utf-8"):
        pytest.skip("you have begun this exercise")
    found = exercises.fault(path, exercises.checks_of(path))
    assert found and "\n" not in found


@each
def test_typical_mistakes_are_told_apart(path):
    checks = exercises.checks_of(path)
    found = {name: checks.check(mistake) for name, mistake in checks.MISTAKES.items()}
    assert len(found) >= 2 and all(found.values()), found
    for english, chinese in found.values():
        assert "\n" not in english + chinese and chinese != english
    assert len(set(found.values())) == len(found), found  # each has a message of its own


def test_the_command_line(capsys, monkeypatch, tmp_path):
    assert exercises.main(["--lang", "en"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(exercises.PATHS)
    copy = shutil.copy(exercises.FOLDER / "solutions" / exercises.PATHS[0].name, tmp_path)
    title = exercises.checks_of(exercises.PATHS[0]).TITLE
    for lang in ("zh", "en"):
        exercises.main(["1", "--lang", lang])
        assert title[lang] in capsys.readouterr().out
    exercises.main(["hint", "1", "2"])
    assert exercises.checks_of(exercises.PATHS[0]).HINTS["en"][1] in capsys.readouterr().out
    exercises.main(["solution", "1"])
    assert "def " in capsys.readouterr().out
    monkeypatch.setattr(exercises, "PATHS", [exercises.FOLDER / copy])
    assert exercises.main(["check", "1"]) == 0 and capsys.readouterr().out == "right\n"
    (tmp_path / exercises.PATHS[0].name).write_text("x = 1 / 0\n")
    assert exercises.main(["check", "1"]) == 1 and "line 1: ZeroDivisionError" in capsys.readouterr().out
    (tmp_path / exercises.PATHS[0].name).write_text("x = 1\n\ndef f(:\n")
    assert exercises.main(["check", "1"]) == 1 and "line 3: SyntaxError" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        exercises.main(["check", "99"])
