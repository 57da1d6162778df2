"""A lesson as a Jupyter notebook that runs alone: in Jupyter, in Colab, without this repository."""

import ast
import base64
import re
import tempfile
import textwrap
from pathlib import Path

import nbformat
from nbformat import v4

from book.pieces import Lesson, Output, Piece, Section, outputs, read
from book.translate import translate
from lessons import load

PACKAGES = {
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
}  # where import and package differ in name
SUFFIX = {"en": "", "zh": ".zh-CN"}  # of the files in each language, as of the READMEs
DRAWING = (Path(__file__).parent / "drawing.py").read_text("utf-8")
INSTALL = """\
# installs what is missing; does nothing where all is there
import importlib.util
import subprocess
import sys

packages = {packages}
missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)"""
DRAW = """\
import tempfile
from pathlib import Path

from IPython.display import Image, display


{source}


display(Image({name}(Path(tempfile.mkdtemp())).read_bytes()))"""


def write_notebooks(folder: Path, names: list[str], language: str) -> int:
    """Writes a notebook for each lesson below `folder`; a notebook of that name that is there already is left alone."""
    from utils import free_name, output_folder, write_atomic

    for name in names:
        path = free_name(output_folder(folder) / f"{name}{SUFFIX[language]}.ipynb")
        write_atomic(path, as_text(make_notebook(name, language)))
        print(path)
    return 0


def as_text(notebook: nbformat.NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def make_notebook(name: str, language: str, results: dict | None = None, drawn: dict[str, Path] | None = None):
    """-> the notebook of a lesson, with the outputs `results` of its examples and the figures `drawn` (None: made now)."""
    lesson = read(name)
    if drawn is None:
        with tempfile.TemporaryDirectory() as folder:
            return make_notebook(name, language, results, figures(lesson, Path(folder)))
    results = outputs(lesson) if results is None else results
    cells = [*first_cells(lesson, language)]
    for section in lesson.sections[1:]:
        cells += section_cells(lesson, section, results[section.name], language, drawn.get(section.name))
    for number, cell in enumerate(cells):
        cell["id"] = f"{name}-{number}"  # instead of a random one: the same lesson makes the same file
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def first_cells(lesson: Lesson, language: str) -> list:
    titles = f"# {translate(lesson.title, language)}"
    texts = [titles if language == "zh" else f"{titles} · {lesson.title_zh}"]
    texts += [as_markdown(piece, language) for piece in lesson.start.pieces]
    texts.append(translate("Play it in a terminal: `python -m lessons {name}`.", language).format(name=lesson.name))
    packages = {module: PACKAGES.get(module, module) for module in imported(lesson)}
    install = v4.new_code_cell(INSTALL.format(packages=packages))
    return [v4.new_markdown_cell("\n\n".join(texts)), install, v4.new_code_cell(lesson.setup)]


def imported(lesson: Lesson) -> list[str]:
    """The libraries that a lesson and its examples import, without Python's own."""
    import sys

    examples = [piece.text for section in lesson.sections for piece in section.pieces if piece.example]
    found = set()
    for code in [lesson.setup, *map(self_contained, lesson.sources.values()), *examples]:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    return sorted(found - sys.stdlib_module_names - {"visdom"})  # which one lesson can do without


def section_cells(lesson: Lesson, section: Section, results: list[Output], language: str, drawn: Path | None) -> list:
    """Texts as Markdown, sources before the examples, the figure after the source; a cell ends with an output."""
    cells, texts, code, results = [], [f"## {section.name} ({', '.join(section.numbers)})"], [], iter(results)

    def put_texts() -> None:
        if texts:
            cells.append(v4.new_markdown_cell("\n\n".join(texts)))
            texts.clear()

    def put_code(output: Output | None = None) -> None:
        if code:
            cells.append(v4.new_code_cell("\n".join(code), outputs=cell_outputs(output) if output else []))
            code.clear()

    for piece in section.pieces:
        if piece.example:
            put_texts()
            output = next(results)
            code.append(caught(piece.text, output))
            if str(output):
                put_code(output)
            continue
        put_code()
        if piece.kind == "figure":
            cells += figure_cells(lesson, section.name, as_markdown(piece, language), drawn)
            continue
        if piece.kind == "helper":
            texts.append(translate("A helper", language))
        elif piece.kind != "source":
            texts.append(as_markdown(piece, language))
            continue
        if piece.kind == "source" and section.name in lesson.formulas:
            texts.append(f"$$ {lesson.formulas[section.name]} $$")
        put_texts()
        cells.append(v4.new_code_cell(piece.text))
        if piece.kind == "source" and section.ahead:
            cells.append(v4.new_markdown_cell(translate("Needed below, explained further down:", language)))
            cells.append(v4.new_code_cell("\n\n\n".join(lesson.sources[name] for name in section.ahead)))
    put_code()
    put_texts()
    return cells


def figure_cells(lesson: Lesson, section: str, caption: str, drawn: Path | None) -> list:
    """What a figure shows, and the code that draws it, folded away, with the figure as its output."""
    name = lesson.figures[section]
    code = DRAW.format(source=self_contained(lesson.sources[name]), name=name)
    shown = []
    if drawn:
        kind = f"image/{drawn.suffix[1:]}"
        picture = {
            kind: base64.b64encode(drawn.read_bytes()).decode(),
            "text/plain": "<IPython.core.display.Image object>",
        }
        shown.append(v4.new_output("display_data", data=picture))
    folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # in Jupyter, in Colab
    return [v4.new_markdown_cell(caption), v4.new_code_cell(code, outputs=shown, metadata=folded)]


def self_contained(source: str) -> str:
    """The source of a function, with those of book/drawing.py before it in place of its import of them."""
    found = re.search(r"\n *from book\.drawing import (.*)", source)
    if not found:
        return source
    helpers = {node.name: node for node in ast.parse(DRAWING).body if isinstance(node, ast.FunctionDef)}
    wanted = [ast.get_source_segment(DRAWING, helpers[name]) for name in found[1].split(", ")]
    return "\n\n\n".join([*wanted, source.replace(found[0], "", 1)])


def figures(lesson: Lesson, folder: Path) -> dict[str, Path]:
    """Draws a lesson's figures below `folder`, a PNG or GIF file each -> section -> file."""
    module = load(lesson.name)
    return {section: getattr(module, name)(folder) for section, name in lesson.figures.items()}


def caught(code: str, output: Output) -> str:
    """An example that raises, as code that prints the error: else a notebook would stop there.

    >>> print(caught("1 / 0", Output("", None, "ZeroDivisionError: division by zero")))
    try:
        1 / 0
    except ZeroDivisionError as error:
        print(f"ZeroDivisionError: {error}")
    """
    if not output.error:
        return code
    name = output.error.partition(":")[0]
    return f'try:\n{textwrap.indent(code, "    ")}\nexcept {name} as error:\n    print(f"{name}: {{error}}")'


def cell_outputs(output: Output) -> list:
    printed = output.printed + (f"{output.error}\n" if output.error else "")
    shown = [v4.new_output("stream", name="stdout", text=printed)] if printed else []
    if output.value is not None:
        shown.append(v4.new_output("execute_result", data={"text/plain": output.value}))
    return shown


def as_markdown(piece: Piece, language: str) -> str:
    """A paragraph as Markdown: what stands between backticks is code, every other mark is itself.

    >>> as_markdown(Piece("text", "x <- x * a_1 with `torch.tensor`"), "en")
    'x \\\\<- x \\\\* a\\\\_1 with `torch.tensor`'
    """
    text = translate(piece.text, language)
    if piece.kind == "fixed":
        return f"```text\n{text}\n```"
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]$|#~])", r"\\\1", part) for part in parts)
