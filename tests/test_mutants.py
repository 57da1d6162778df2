"""The lists of deliberate mistakes: each can be made. `nox -s mutants` shows that each is noticed."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import mutants  # noqa: E402

CHAPTERS = sorted(path.parents[1] for path in ROOT.glob("ch*_*/tests/mutants.toml"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)
def test_each_mistake_can_be_made_and_its_test_is_there(chapter):
    for mutant in mutants.read_list(chapter / "tests" / "mutants.toml"):
        mutants.place_of((chapter / mutant["file"]).read_text("utf-8").split("\n"), mutant)
        file, _, test = mutant["test"].partition("::")
        name = test.partition("[")[0].rpartition("::")[2]
        assert f"def {name}(" in (chapter / file).read_text("utf-8"), mutant["name"]


def test_every_chapter_has_ten_mistakes_or_more():
    assert len(CHAPTERS) == 9
    assert all(len(mutants.read_list(chapter / "tests" / "mutants.toml")) >= 10 for chapter in CHAPTERS)
