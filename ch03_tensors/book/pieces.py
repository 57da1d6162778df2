"""A lesson as a row of pieces: its texts, the source of its functions, its examples and what they print.

The lesson modules are the only source. They are read as text; only running their examples imports them.
"""

import ast
import contextlib
import doctest
import functools
import io
import re
import sys
from dataclasses import dataclass, field

from lessons import FOLDER, MODULES, load, outline

NUMBERS = re.compile(r"\s*\(((?:\d+-\d+(?:, )?)+)\)$")
NOT_SHOWN = {"TITLE", "TITLE_ZH", "LESSONS", "FORMULAS", "FIGURES"}


@dataclass
class Piece:
    """kind: `text` (a paragraph), `fixed` (one to be set as it stands), `source`, `helper` (source of a function that the
    lesson needs and does not teach), `figure` (what is to be seen on it) or `example`."""

    kind: str
    text: str
    example: doctest.Example | None = None


@dataclass
class Output:
    """What an example printed, the value it gave (None: no value), and what it raised."""

    printed: str
    value: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        value = "" if self.value is None else f"{self.value}\n"
        error = "" if self.error is None else f"{self.error}\n"
        return self.printed + value + error


@dataclass
class Section:
    """A function or class of a lesson, with the course's numbers that it shows; name "": the lesson's first words.

    `ahead` names the functions taught later that the examples here need already: a notebook must define them first.
    """

    name: str
    numbers: list[str] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)


@dataclass
class Lesson:
    name: str
    title: str
    title_zh: str
    course: dict[str, str]
    setup: str  # imports and constants
    sections: list[Section]
    sources: dict[str, str]  # of every function and class, without its docstring
    formulas: dict[str, str]
    figures: dict[str, str]  # section -> the function that draws its figure

    @property
    def start(self) -> Section:
        return self.sections[0]


@functools.cache
def read(name: str) -> Lesson:
    """-> the lesson `name`; ValueError for a name that is no lesson.

    A function is for readers if the first line of its docstring ends with numbers of the course; the others are helpers.

    >>> [section.name for section in read("linalg").sections][1:]
    ['p_norm', 'solve_by_lu', 'least_squares_by_qr', 'pca', 'low_rank', 'lda']
    >>> print(read("indexing").sources["take_flat"])
    def take_flat(a: Tensor, index: Tensor) -> Tensor:
        return a.reshape(-1)[index]
    """
    if name not in MODULES:
        raise ValueError(name)
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    tree, lines, found = ast.parse(text), text.splitlines(), outline(name)
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    sources = {key: source_of(node, lines) for key, node in nodes.items()}
    sections = [Section("", [], text_pieces(ast.get_docstring(tree)))]
    shown, defined = set(), set()
    for key, node in nodes.items():
        if numbers := course_numbers(ast.get_docstring(node)):
            drawing = nodes.get(found.get("FIGURES", {}).get(key))
            sections.append(make_section(key, numbers, nodes, sources, shown, defined, drawing))
    titles = (found["TITLE"], found["TITLE_ZH"], found["LESSONS"])
    setup = "\n".join(setup_of(tree, lines)).strip()
    return Lesson(name, *titles, setup, sections, sources, found.get("FORMULAS", {}), found.get("FIGURES", {}))


def make_section(
    key: str, numbers: list[str], nodes: dict, sources: dict, shown: set, defined: set, drawing: ast.FunctionDef | None
) -> Section:
    """The pieces of one function, in the order: reason and explanation, helpers, source, figure, examples with their texts."""
    pieces = text_pieces(NUMBERS.sub("", first_line(nodes[key])) + "\n" + rest_of_docstring(nodes[key]))
    first = next((i for i, piece in enumerate(pieces) if piece.kind == "example"), len(pieces))
    if 0 < first < len(pieces) and pieces[first - 1].text.endswith(":"):
        first -= 1  # a text that announces the first example stays with it
    examples = "".join(piece.example.source for piece in pieces if piece.example)
    figure = [Piece("figure", " ".join(ast.get_docstring(drawing).split()))] if drawing else []
    needed = needs("\n".join([sources[key], examples, sources[drawing.name] if drawing else ""]), sources)
    needed = [name for name in needed if not (drawing and name == drawing.name)]
    helpers = [name for name in needed if not course_numbers(ast.get_docstring(nodes[name]))]
    code = [Piece("helper", sources[name]) for name in helpers if name not in shown]
    ahead = [name for name in needed if name != key and name not in helpers and name not in defined]
    shown.update(helpers)
    defined.update([key, *ahead])
    code += [Piece("source", sources[key]), *figure]
    return Section(key, numbers, [*pieces[:first], *code, *pieces[first:]], ahead)


def needs(code: str, sources: dict[str, str]) -> list[str]:
    """The functions and classes of a lesson that this code uses, also by way of others, in the lesson's order."""
    found, open_ = set(), [code]
    while open_:
        names = {node.id for node in ast.walk(ast.parse(open_.pop())) if isinstance(node, ast.Name)}
        new = (names & sources.keys()) - found
        found |= new
        open_ += [sources[name] for name in new]
    return [name for name in sources if name in found]


def course_numbers(docstring: str | None) -> list[str]:
    """The course's numbers at the end of a docstring's first line.

    >>> course_numbers("Clamps values. (3-20, 3-21)"), course_numbers("A helper.")
    (['3-20', '3-21'], [])
    """
    marked = NUMBERS.search((docstring or "").partition("\n")[0])
    return marked[1].split(", ") if marked else []


def first_line(node: ast.AST) -> str:
    return ast.get_docstring(node).partition("\n")[0]


def rest_of_docstring(node: ast.AST) -> str:
    return ast.get_docstring(node).partition("\n")[2]


def text_pieces(docstring: str) -> list[Piece]:
    """A docstring as texts (a paragraph each, on one line) and examples.

    >>> [(piece.kind, piece.text) for piece in text_pieces("One\\ntwo.\\n\\n    a  b\\n\\n>>> 1 + 1\\n2")]
    [('text', 'One two.'), ('fixed', '    a  b'), ('example', '1 + 1')]
    """
    pieces = []
    for part in doctest.DocTestParser().parse(docstring):
        if isinstance(part, doctest.Example):
            pieces.append(Piece("example", part.source.rstrip("\n"), part))
            continue
        for paragraph in re.split(r"\n\s*\n", part):
            lines = paragraph.strip("\n").splitlines()
            if not paragraph.strip() or all(re.match(r" *python -m lessons", line) for line in lines):
                continue  # how to play it: for readers of the file
            fixed = any(line.startswith("  ") for line in lines)
            pieces.append(
                Piece("fixed" if fixed else "text", "\n".join(lines) if fixed else " ".join(paragraph.split()))
            )
    return pieces


def setup_of(tree: ast.Module, lines: list[str]) -> list[str]:
    """The lines of a lesson's imports and constants: what its examples find defined."""
    kept, end = [], 0
    for node in tree.body[1:]:
        names = {target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef) or names & NOT_SHOWN:
            continue
        gap = [""] if kept and node.lineno > end + 1 else []
        kept += gap + [without_mark(line) for line in lines[node.lineno - 1 : node.end_lineno]]
        end = node.end_lineno
    return kept


def without_mark(line: str) -> str:
    """The line without its word to the linter."""
    return re.sub(r"  # noqa.*$", "", line)


def source_of(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> str:
    """The source without the docstring; of the docstrings of a class's methods the first line is kept."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = dict(enumerate(lines[first - 1 : node.end_lineno], start=first))
    for owner in ast.walk(node):
        if not isinstance(owner, ast.FunctionDef | ast.ClassDef) or not ast.get_docstring(owner):
            continue
        docstring = owner.body[0]
        for number in range(docstring.lineno, docstring.end_lineno + 1):
            kept.pop(number)
        if len(owner.body) == 1:
            kept[docstring.lineno] = " " * docstring.col_offset + "..."
        elif owner is not node:
            kept[docstring.lineno] = " " * docstring.col_offset + f'"""{first_line(owner)}"""'
        elif not kept.get(docstring.end_lineno + 1, "x").strip():
            kept.pop(docstring.end_lineno + 1)  # the empty line below a class's docstring
    return "\n".join(without_mark(kept[number]) for number in sorted(kept))


# ---- running the examples ------------------------------------------------------------------------------------------


def run(example: doctest.Example, names: dict) -> Output:
    """Runs one example with these names, as Python's prompt does: a value is shown, an error ends nothing."""
    printed, values, show = io.StringIO(), [], sys.displayhook
    sys.displayhook = lambda value: values.append(repr(value)) if value is not None else None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, "<example>", "single", dont_inherit=True), names)
    except Exception as error:
        return Output(printed.getvalue(), None, f"{type(error).__name__}: {error}")
    finally:
        sys.displayhook = show
    return Output(printed.getvalue(), values[0] if values else None)


def outputs(lesson: Lesson) -> dict[str, list[Output]]:
    """Runs all examples of a lesson -> for each section's name its examples' outputs, in reading order."""
    module, found = load(lesson.name), {}
    for section in lesson.sections:
        names = dict(vars(module))  # the examples of one docstring share the names they define, as in a session
        found[section.name] = [run(piece.example, names) for piece in section.pieces if piece.example]
    return found
