"""The lessons, one module a topic, in the order of the course.

    python -m lessons              lists them
    python -m lessons indexing     plays one: its explanations, its functions, its examples, and what the examples print

A lesson module holds TITLE, TITLE_ZH, LESSONS (course number -> the course's own title), small functions whose
docstrings explain and show them, and perhaps FORMULAS (function -> its formula in LaTeX) and FIGURES
(function -> the function that draws a figure for it: `draw_it(folder) -> Path`, its docstring says what is to be seen).

A function for readers has a docstring whose first line says why one would want it and ends with the course numbers that
it shows, as in "(3-21)"; the next paragraph says what it does. A function without numbers is a helper: its source is
shown where it is first needed, and its examples are only tests.
"""

import ast
import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent
NAMES = ("TITLE", "TITLE_ZH", "LESSONS", "FORMULAS", "FIGURES")  # what a lesson says of itself
MODULES = (
    "elements",
    "creation",
    "attributes",
    "arithmetic",
    "comparison",
    "statistics",
    "linalg",
    "indexing",
    "reshaping",
    "techniques",
    "autograd",
    "modules",
    "activations_losses",
    "normalisation",
    "initialisation",
    "tools",
    "neurons",
    "loading",
    "images",
    "tracking",
    "convolutions",
    "pooling",
    "architectures",
    "optimisation",
    "regularisation",
    "classification",
    "adversarial",
    "recurrent",
    "attention",
    "bert",
    "language_model",
)


def load(name: str) -> ModuleType:
    """Imports the lesson `name`; ValueError for a name that is no lesson.

    >>> load("indexing").TITLE
    'Indexing and selecting'
    """
    if name not in MODULES:
        raise ValueError(name)
    return importlib.import_module(f"{__name__}.{name}")


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a lesson in reading order, each as a DocTest (`.docstring`, `.examples`).

    >>> [test.name.split(".")[-1] for test in examples(load("indexing"))][:2]
    ['indexing', 'clamp_between']
    """
    found = doctest.DocTestFinder(exclude_empty=False).find(module, module.__name__)
    # a dataclass makes a docstring of its own, which has no line
    written = [test for test in found if test.docstring and test.lineno is not None]
    return sorted(written, key=lambda test: test.lineno)


def outline(name: str) -> dict:
    """What a lesson holds, read from its text and not imported (some take seconds to import).

    `shown`: course number -> the functions and classes that show it, in reading order.

    >>> found = outline("indexing")
    >>> found["TITLE"], found["LESSONS"]["3-20"], found["shown"]["3-20"]
    ('Indexing and selecting', 'Pytorch与张量裁剪', ['clamp_between'])
    """
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in NAMES:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    found["shown"] = {number: [] for number in found["LESSONS"]}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first_line = (ast.get_docstring(node) or "").partition("\n")[0]
            marked = re.search(r"\(((?:\d+-\d+(?:, )?)+)\)$", first_line)
            for number in marked[1].split(", ") if marked else ():
                found["shown"][number].append(node.name)
    return found
