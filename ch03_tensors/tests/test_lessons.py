"""The lessons: every example prints what it says, every lesson number is shown, every name of the course appears."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch
from latex2mathml.converter import convert

import lessons
from book import pieces
from book.pieces import read
from lessons import MODULES, __main__, examples, load, outline

CHAPTER = Path(lessons.__file__).parent.parent
OTHERS = ("compare", "datasets", "models", "optimizers", "sample", "surface", "lessons.__main__")
OTHERS += tuple(f"book.{path.stem}" for path in sorted((CHAPTER / "book").glob("*.py")))
# The torch.* names of the course's notes on chapter 3.
NAMES = (
    "DoubleTensor FloatTensor Size Tensor add arange argmax argmin autograd.Function autograd.grad bincount cat "
    "ceil chunk cos device dist div eq equal exp exp_ eye flip float32 float64 floor from_numpy full gather ge gt "
    "histc index_select int32 is_storage is_tensor isfinite isinf isnan kthvalue le linspace log log10 log2 log_ "
    "lt manual_seed masked_select matmul mean median mm mode mul ne nn.BatchNorm1d nn.Conv2d nn.InstanceNorm1d "
    "nn.functional nn.functional.conv2d nonzero norm normal numel ones ones_like pow prod rand randint randn "
    "randperm return_types.kthvalue return_types.mode return_types.sort return_types.topk rot90 round sort "
    "sparse_coo sparse_coo_tensor split sqrt squeeze stack std sub sum t take tensor topk transpose trunc unbind "
    "unsqueeze var where zeros zeros_like "
)
# What of the other chapters is a lesson here.
OTHER_CHAPTERS = ["2-2", "4-1", "4-2", "4-4", "4-5", "4-6", "6-2", "6-16", "6-17", "9-1", "9-2"]
# A name that no longer stands for what the notes do with it -> what an example shows instead.
REPLACED = {"autograd.variable": "autograd.Variable"}


def all_doctests() -> list:
    found = [test for name in MODULES for test in examples(load(name))] + examples(lessons)
    for name in OTHERS:
        found += examples(importlib.import_module(name))
    return [pytest.param(test, id=test.name) for test in found if test.examples]


@pytest.mark.parametrize("test", all_doctests())
def test_examples_print_what_they_say(test):
    printed = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=printed.append, clear_globs=False)
    assert result.failed == 0, "".join(printed)


def test_every_module_is_a_lesson():
    files = {path.stem for path in (CHAPTER / "lessons").glob("*.py")} - {"__init__", "__main__"}
    assert files == set(MODULES) and len(MODULES) == len(files)


def test_every_course_lesson_is_shown_by_a_function_that_exists():
    shown = {}
    for name in MODULES:
        module = load(name)
        assert module.TITLE and module.TITLE_ZH and outline(name)["LESSONS"] == module.LESSONS
        for number, functions in outline(name)["shown"].items():
            assert functions, f"{name} names lesson {number}, and no docstring's first line ends with ({number})"
            assert all(callable(getattr(module, function)) for function in functions)
            shown.setdefault(number, []).extend(functions)
    course = [f"{chapter}-{k}" for chapter, last in ((3, 37), (5, 14), (10, 8)) for k in range(1, last + 1)]
    assert sorted(shown) == sorted([*OTHER_CHAPTERS, *course])


def test_lessons_stand_in_the_order_of_the_course():
    first = [min(tuple(map(int, number.split("-"))) for number in load(name).LESSONS) for name in MODULES]
    chapters = [chapter for chapter, _ in first]
    assert first[:12] == sorted(first[:12]) and set(chapters) == {2, 3, 4, 5, 6, 9, 10}


@pytest.fixture(scope="module")
def example_code() -> str:
    """The code of all examples of all lessons."""
    return "".join(example.source for name in MODULES for test in examples(load(name)) for example in test.examples)


@pytest.mark.parametrize("name", [*NAMES.split(), *REPLACED])
def test_every_name_of_the_notes_is_in_an_example(name, example_code):
    wanted = rf"\btorch\.{re.escape(REPLACED.get(name, name))}\b(?!\.\w)"
    assert re.search(wanted, example_code)


def test_a_replaced_name_is_really_gone():
    with pytest.raises(RuntimeError, match="deprecated"):
        torch.autograd.variable(torch.rand(4), requires_grad=True)


def test_listing_names_all_lessons(capsys):
    assert __main__.main([]) == 0
    printed = capsys.readouterr().out
    for name in MODULES:
        assert name in printed and load(name).TITLE in printed and load(name).TITLE_ZH in printed
    assert "3-21" in printed and "Pytorch与张量的索引与数据筛选" in printed and "gather_rows" in printed


def test_a_wrong_name_names_the_nearest_ones():
    with pytest.raises(SystemExit) as stop:
        __main__.main(["indexng"])
    message = str(stop.value)
    assert message.count("\n") == 0 and "indexng" in message and "indexing" in message


@pytest.mark.parametrize(
    "word, heading",
    [
        ("3-19", "--- low_rank (3-19) ---"),
        ("PCA", "--- pca (3-18) ---"),
        ("gather", "--- gather_rows (3-21) ---"),
        ("torch.gather", "--- gather_rows (3-21) ---"),
        ("lu", "--- solve_by_lu (3-18) ---"),
        ("创建", "creation: Creating tensors"),
        ("broadcast", "arithmetic: "),
    ],
)
def test_lessons_are_found_by_number_function_torch_name_and_title(word, heading, empty_folder, capsys):
    assert __main__.main([word, "--lang", "en"]) == 0
    printed = capsys.readouterr().out
    assert heading in printed and printed.count("=" * 100) == 2, "one lesson is played"
    assert ("--- pca" in printed) == (word == "PCA"), "and of it only what the word means"


def test_a_word_with_several_meanings_lists_them_and_plays_none(capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["3-34"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and ">>>" not in printed
    assert [line.split()[0] for line in printed.splitlines()[1:]] == [
        "modules",
        "activations_losses",
        "normalisation",
        "initialisation",
    ]


def test_playing_prints_explanation_source_example_and_output_in_this_order(empty_folder, capsys):
    assert __main__.main(["indexing", "--lang", "en"]) == 0
    printed = capsys.readouterr().out
    order = [
        "    import torch\n    from torch import Tensor",
        "--- gather_rows (3-21) ---",
        "takes one element for each element of `index`",
        "    def gather_rows(table: Tensor, index: Tensor) -> Tensor:\n        return table.gather(",
        ">>> gather_rows(logits, torch.tensor([1, 0]))",
    ]
    assert [printed.index(part) for part in order] == sorted(printed.index(part) for part in order)
    at = printed.index(order[-1])
    assert printed[at:].splitlines()[1].strip() == "tensor([0.7000, 0.5000])"
    assert "!!" not in printed and '"""' not in printed


@pytest.mark.parametrize("name", MODULES)
def test_a_reason_stands_first_then_what_it_does_then_the_source_and_the_examples(name):
    for section in read(name).sections[1:]:
        kinds = [piece.kind for piece in section.pieces]
        assert kinds[:2] == ["text", "text"], f"{section.name}: a paragraph why, then one that says what"
        assert kinds.index("source") < kinds.index("example") if "example" in kinds else "source" in kinds
        assert section.pieces[0].text.endswith((".", "?")) and len(section.pieces[0].text) > 30


def test_formulas_are_of_functions_and_readable():
    for name in MODULES:
        lesson = read(name)
        assert lesson.formulas.keys() <= {section.name for section in lesson.sections}
        assert all(convert(formula).startswith("<math") for formula in lesson.formulas.values())


def test_functions_with_numbers_are_played_and_helpers_only_shown_where_they_are_needed():
    for name in MODULES:
        found = [section.name for section in read(name).sections[1:]]
        shown = {function for functions in outline(name)["shown"].values() for function in functions}
        assert set(found) == shown and len(found) == len(shown)
        assert not [function for function in found if function.startswith("_") or function.startswith("draw_")]
    helpers = [piece.text for section in read("linalg").sections for piece in section.pieces if piece.kind == "helper"]
    assert [code.partition("(")[0] for code in helpers] == ["def iris", "def separation"]


STALE = '''"""A lesson whose examples lie."""

TITLE = "Stale"
TITLE_ZH = "旧"
LESSONS = {"3-7": "旧"}


def add():
    """A sum, and a division. (3-7)

    >>> 1 + 1
    3
    >>> 1 / 0
    0
    """
'''


def test_playing_says_where_an_example_differs(tmp_path, monkeypatch, capsys):
    (tmp_path / "stale.py").write_text(STALE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pieces, "FOLDER", tmp_path)
    monkeypatch.setattr(lessons, "FOLDER", tmp_path)
    monkeypatch.setattr(pieces, "MODULES", ("stale",))
    monkeypatch.setattr(__main__, "load", importlib.import_module)
    assert __main__.play("stale", [], tmp_path, "en") == 2
    pieces.read.cache_clear()
    printed = capsys.readouterr().out
    assert re.search(r">>> 1 \+ 1\n +2\n +!! here the lesson says:\n +3", printed)
    assert "!! raised ZeroDivisionError" in printed


def test_differing_examples_are_counted_and_the_exit_status_is_1(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "play", lambda *words: 2)
    assert __main__.main(["indexing"]) == 1 and "2 example(s)" in capsys.readouterr().out


def test_playing_leaves_the_shared_random_generator_of_lessons_with_own_seeds_alone():
    from lessons import bert, language_model, recurrent, tools

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    bert.pretrain(1)
    language_model.train_neural(1)
    recurrent.gradient_over_time("lstm", 3)
    tools.augmented(torch.zeros(3, 40, 40, dtype=torch.uint8), 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_two_boxes_of_a_frame_have_one_name():
    from lessons.tracking import name_boxes

    before = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])
    now = torch.tensor(
        [[1.0, 0, 11, 10], [2, 0, 12, 10]]
    )  # both overlap the first one, which is nearer to the left one
    assert name_boxes([before, now]) == [[0, 1], [0, 2]]
    assert name_boxes([before, torch.empty(0, 4), now]) == [[0, 1], [], [2, 3]]
    assert name_boxes([before]) == [[0, 1]]


def test_light_from_one_side_does_not_lead_the_track_away():
    from lessons.tracking import film, follow

    pictures, corners = film(40)
    found = follow(0.5 * pictures + torch.linspace(0, 1, 64), corners[0].tolist())
    assert (found - corners).abs().max() <= 1
