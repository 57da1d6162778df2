"""The lessons' figures: each is drawn, is not empty, stands beside its function, and shows what is true."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from book.pieces import read
from book.translate import translations
from lessons import MODULES, load
from lessons.convolutions import receptive_field

FIGURES = [(name, section) for name in MODULES for section in read(name).figures]
WANTED = {
    "add_bias",  # broadcasting as blocks
    "gather_rows",
    "output_size",  # stride and padding
    "receptive_field",
    "learn_to_reverse",  # attention
    "LSTMCell",
    "down_the_ravine",  # optimizers
}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """drawn(lesson, section) -> the matplotlib figures as they are saved, and the file."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *w, **k: (figures.append(figure), save(figure, *w, **k))[1])
    return lambda name, section: (figures, getattr(load(name), read(name).figures[section])(tmp_path))


@pytest.mark.parametrize("name, section", FIGURES, ids=[section for _, section in FIGURES])
def test_a_figure_stands_beside_its_function_says_what_it_shows_and_is_not_empty(name, section, drawn):
    (piece,) = [
        piece for part in read(name).sections if part.name == section for piece in part.pieces if piece.kind == "figure"
    ]
    assert len(piece.text) > 30 and translations().get(piece.text), "what is to be seen, in both languages"
    _, path = drawn(name, section)
    with Image.open(path) as picture:
        assert min(picture.size) > 200 and path.suffix in (".png", ".gif")
        assert len(picture.convert("RGB").getcolors(picture.size[0] * picture.size[1])) > 10, "more than white paper"


def test_every_geometric_idea_has_a_figure():
    assert {section for _, section in FIGURES} >= WANTED


def test_broadcasting_shows_the_numbers_in_memory_solid_and_their_sum(drawn):
    (figure,), _ = drawn("arithmetic", "add_bias")
    (axis,) = figure.axes
    squares = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    numbers = {text.get_position(): text.get_text() for text in axis.texts}
    assert len(squares) == 36

    def table(left: float) -> list[list[tuple[float, bool]]]:
        found = {square.get_xy(): square.get_alpha() > 0.5 for square in squares}
        return [[(float(numbers[left + j + 0.5, i + 0.5]), found[left + j, i]) for j in range(4)] for i in range(3)]

    column, row, total = (torch.tensor(table(left)) for left in (0, 5.2, 10.4))
    assert torch.equal(column[..., 0] + row[..., 0], total[..., 0])
    assert (
        column[..., 1].sum(1).tolist() == [1, 1, 1] and row[..., 1].sum(1).tolist() == [4, 0, 0] and total[..., 1].all()
    )


def test_gathers_arrows_lead_from_an_element_to_the_same_number(drawn):
    (figure,), _ = drawn("indexing", "gather_rows")
    for axis, across in zip(figure.axes, (True, False), strict=True):
        numbers = {text.get_position(): text.get_text() for text in axis.texts if text.get_text().isdigit()}
        arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None)]
        assert len(arrows) == 4
        for arrow in arrows:
            (x, y), (to_x, to_y) = arrow.xyann, arrow.xy
            start, end = ((x - 0.5, y), (to_x + 0.5, to_y)) if across else ((x, y - 0.5), (to_x, to_y + 0.5))
            assert numbers[start] == numbers[end]
            assert (y == to_y) if across else (x == to_x), "along the dimension, and in no other direction"


def test_the_sliding_kernel_covers_what_it_adds_up(drawn):
    figures, path = drawn("convolutions", "output_size")
    with Image.open(path) as animation:
        assert animation.n_frames == len(figures) == 9
    seen = []
    for figure in figures:
        (axis,) = figure.axes
        window, result = [patch for patch in axis.patches if not patch.get_fill()]
        (left, top), (x, y) = window.get_xy(), result.get_xy()
        numbers = {text.get_position(): float(text.get_text()) for text in axis.texts}
        covered = [numbers[left + j + 0.5, top + i + 0.5] for i in range(3) for j in range(3)]
        assert sum(covered) == numbers[x + 0.5, y + 0.5]
        seen.append((left, top))
    assert seen == [(j, i) for i in (0, 2, 4) for j in (0, 2, 4)], "two squares at a time, from border to border"


def test_receptive_fields_reach_as_far_as_the_formula_says(drawn):
    (figure,), _ = drawn("convolutions", "receptive_field")
    chains = [[(3, 1, 1)] * 3, [(3, 2, 1)] * 3, [(3, 1, 1), (3, 1, 2), (3, 1, 4)]]
    for axis, layers in zip(figure.axes, chains, strict=True):
        pixels = sorted(axis.collections[-1].get_offsets()[:, 0].tolist())
        assert len(pixels) == receptive_field(layers) == pixels[-1] - pixels[0] + 1
        assert pixels[0] == -pixels[-1], "the output stands in the middle of what it sees"


def test_attention_looks_from_the_last_token_to_the_first_once_it_has_learned(drawn):
    (figure,), _ = drawn("attention", "learn_to_reverse")
    before, after = (torch.as_tensor(axis.images[0].get_array()) for axis in figure.axes[:2])
    assert after.argmax(1).tolist() == list(range(7, -1, -1)) != before.argmax(1).tolist()
    assert torch.allclose(after.sum(1), torch.ones(8))


def test_the_memory_takes_over_a_number_when_the_gates_say_so(drawn):
    (figure,), _ = drawn("recurrent", "LSTMCell")
    number, say, enter, forget, memory = ([bar.get_height() for bar in axis.patches] for axis in figure.axes)
    kept = 0.0
    for t in range(16):
        assert round(enter[t]) == say[t] == 1 - round(forget[t])
        kept = math.tanh(number[t]) if say[t] else kept
        assert memory[t] == pytest.approx(kept, abs=0.02)


def test_optimizers_walk_on_one_surface_from_the_same_start(drawn):
    (figure,), _ = drawn("optimisation", "down_the_ravine")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["sgd", "momentum", "rmsprop", "adam"]
    for line in axis.lines:
        path = line.get_xydata()
        assert path.shape == (41, 2) and path[0].tolist() == [-4, 1] and abs(path[-1]).max() < 1


def test_the_schedules_are_those_of_the_functions(drawn):
    (figure,), _ = drawn("optimisation", "plateau_schedule")
    rates = {axis.get_title(): axis.lines[0].get_ydata() for axis in figure.axes}
    assert max(rates["warm-up and cosine"]) == rates["warm-up and cosine"][4] == 0.1 > rates["warm-up and cosine"][0]
    loss = figure.axes[-1].lines[1].get_ydata()
    cuts = [t for t in range(1, 40) if rates["plateau"][t] < rates["plateau"][t - 1]]
    assert cuts and all(loss[t] == loss[t - 1] for t in cuts), "cut only where the loss stands still"


def test_the_track_is_drawn_where_the_square_is(drawn):
    from lessons.tracking import film

    (figure,), _ = drawn("tracking", "follow")
    corners = film(40)[1].tolist()
    for axis, t in zip(figure.axes, (0, 20, 39), strict=True):
        (box,), (line,) = axis.patches, axis.lines
        y, x = corners[t]
        assert box.get_xy() == (x - 0.5, y - 0.5) and line.get_xydata()[-1].tolist() == [x + 5.5, y + 5.5]
