"""The notebooks: each runs from top to bottom, alone, and shows what the lesson shows."""

import os
import re
import sys

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient

from book.notebook import INSTALL, make_notebook, write_notebooks
from book.pieces import Lesson, Output, outputs, read
from lessons import MODULES


def as_said(lesson: Lesson) -> dict[str, list[Output]]:
    """What the lesson says that its examples show, which test_lessons.py holds true; running them once more takes time."""

    def output(example) -> Output:
        said = re.search(r"^\S*(?:Error|Exception).*", example.want, re.M) if example.exc_msg else None
        return Output("", None, said[0]) if said else Output("", example.want.replace("<BLANKLINE>", "") or None)

    return {s.name: [output(piece.example) for piece in s.pieces if piece.example] for s in lesson.sections}


def bare(text: str) -> str:
    """Without white space: IPython breaks long tuples in other places."""
    return "".join(text.split())


def shown(cell) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


@pytest.mark.parametrize("name", MODULES)
def test_a_notebook_runs_alone_and_shows_what_the_lesson_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("ch03_tensors") and path])
    hidden = [name for name in sys.modules if name.split(".")[0] in ("lessons", "book", "utils", "datasets", "models")]
    notebook = make_notebook(name, "en", as_said(read(name)), drawn={})  # the cells draw them
    for module in hidden:
        monkeypatch.delitem(sys.modules, module, raising=False)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(user_ns={})
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        with capture_output() as captured:
            result = shell.run_cell(cell.source)
        assert result.success, f"{cell.source}\n{result.error_in_exec or result.error_before_exec}"
        if "display(Image(" not in cell.source:
            printed = re.sub(r"Out\[\d+\]:", "", captured.stdout)
            assert bare(printed) == bare(shown(cell)), cell.source
        else:
            (output,) = captured.outputs
            assert {"image/png", "image/gif"} & set(output.data)
    assert not {module for module in sys.modules if module.split(".")[0] in ("lessons", "book")}, (
        "it imported the chapter"
    )


def test_a_written_notebook_runs_in_a_kernel_and_gives_the_outputs_that_it_holds(tmp_path, monkeypatch):
    """As Jupyter runs it: a process of its own, in an empty folder."""
    write_notebooks(tmp_path, ["indexing"], "en")
    before = nbformat.read(tmp_path / "indexing.ipynb", 4)
    after = nbformat.read(tmp_path / "indexing.ipynb", 4)
    monkeypatch.setitem(os.environ, "PYTHONPATH", "")
    NotebookClient(after, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pairs = [(shown(a), shown(b)) for a, b in zip(before.cells, after.cells, strict=True) if a.cell_type == "code"]
    assert len(pairs) > 20 and any(a for a, _ in pairs)
    assert [bare(a) for a, _ in pairs] == [bare(b) for _, b in pairs]


def test_a_notebook_has_texts_formulas_sources_and_pictures():
    notebook = make_notebook("linalg", "en", as_said(read("linalg")))
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert texts[0].startswith("# Norms, factorisations, PCA and LDA · 范数") and any(
        "## pca (3-18)" in t for t in texts
    )
    assert any(t.startswith("def pca(") for t in code) and not any('"""' in t for t in code[2:])
    assert "scikit-learn" in code[0] and "find_spec" in code[0]
    pictures = [
        o
        for cell in notebook.cells
        if cell.cell_type == "code"
        for o in cell.outputs
        if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 1 and len(pictures[0].data["image/png"]) > 5000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    at = next(i for i, cell in enumerate(code) if cell.outputs == pictures)
    assert code[at - 1].source.startswith("def lda("), "a figure stands beside what it explains"
    assert any("$$" in text for text in texts)


def test_outputs_of_a_run_are_those_that_the_lesson_says():
    said, run = as_said(read("indexing")), outputs(read("indexing"))
    assert {name: [bare(str(o)) for o in found] for name, found in run.items()} == {
        name: [bare(str(o)) for o in found] for name, found in said.items()
    }


def test_an_existing_notebook_is_left_alone(tmp_path):
    (tmp_path / "indexing.ipynb").write_text("mine")
    write_notebooks(tmp_path, ["indexing"], "en")
    assert (tmp_path / "indexing.ipynb").read_text() == "mine" and (tmp_path / "indexing-2.ipynb").exists()


def test_the_first_cell_asks_for_no_network_where_all_is_there(monkeypatch):
    import subprocess

    asked = []
    monkeypatch.setattr(subprocess, "run", lambda words, **options: asked.append(words))
    exec(INSTALL.format(packages={"torch": "torch"}), {})
    assert not asked
    exec(INSTALL.format(packages={"not_there_at_all": "not-there"}), {})
    assert asked[0][1:4] == ["-m", "pip", "install"] and asked[0][-1] == "not-there"
