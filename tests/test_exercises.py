"""The chapters' exercises, as far as one sees it without PyTorch: three files each, both languages, and not solved.

The chapters' own tests run the checkers.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = sorted(ROOT.glob("ch*_*/exercises/[0-9][0-9]_*.py"))


def name_of(path: Path) -> str:
    return f"{path.parts[-3][:4]}-{path.stem}"


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_an_exercise_is_unsolved_and_has_a_solution_and_texts_in_both_languages(path):
    assert "raise NotImplementedError" in path.read_text("utf-8")
    assert "raise NotImplementedError" not in (path.parent / "solutions" / path.name).read_text("utf-8")
    checks = ast.parse((path.parent / "checks" / path.name).read_text("utf-8")).body
    values = {
        node.targets[0].id: node.value
        for node in checks
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for name in ("TITLE", "TEXT", "HINTS"):
        assert set(ast.literal_eval(values[name])) == {"en", "zh"}
    assert "check" in {node.name for node in checks if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("folder", sorted(ROOT.glob("ch*_*/exercises")), ids=lambda folder: folder.parent.name)
def test_no_exercise_lacks_a_file_and_their_numbers_have_no_gap(folder):
    names = [path.name for path in sorted(folder.glob("[0-9][0-9]_*.py"))]
    assert [int(name[:2]) for name in names] == list(range(1, len(names) + 1)) and len(names) >= 3
    for part in ("checks", "solutions"):
        assert sorted(path.name for path in (folder / part).glob("*.py")) == names
