"""Finds lessons: by their name, by the course's number, by a function, by a torch name in the examples, by a title."""

import difflib
import functools
import re

from book.pieces import Lesson, read
from lessons import MODULES

LIBRARIES = r"(?:torch|F|nn|optim|cv2|np|v2|utils|models|datasets|kl_divergence|Normal|Beta|Categorical)"
API = re.compile(rf"(?<![\w.])({LIBRARIES}(?:\.[A-Za-z]\w*)+)")
METHOD = re.compile(r"(?<=[\w)\]])\.([a-z]\w*)\(")
SHORT = {"F": "torch.nn.functional", "nn": "torch.nn", "np": "numpy", "v2": "torchvision.transforms.v2"}


def find(word: str) -> dict[str, list[str]]:
    """-> lesson -> the functions in it that the word means; an empty list: the whole lesson.

    The first kind of name that fits decides: a lesson, a number, a function, an API name, a title, a part of a name.

    >>> find("3-19"), find("pca"), find("torch.gather"), find("创建")
    ({'linalg': ['low_rank', 'lda']}, {'linalg': ['pca']}, {'indexing': ['gather_rows']}, {'creation': []})
    >>> find("no such thing")
    {}
    """
    wanted = word.strip().lower()
    for table, fits in (
        (names(), str.__eq__),
        (numbers(), str.__eq__),
        (functions(), str.__eq__),
        (apis(), lambda name, wanted: name == wanted or name.endswith(f".{wanted}")),
        (titles(), str.__contains__),
        (functions() | apis(), str.__contains__),
    ):
        found: dict[str, list[str]] = {}
        for name, places in table.items():
            if wanted and fits(name.lower(), wanted):
                for lesson, function in places:
                    found.setdefault(lesson, []).append(function)
        if found:
            return {lesson: in_order(lesson, found[lesson]) for lesson in MODULES if lesson in found}
    return {}


def in_order(lesson: str, wanted: list[str]) -> list[str]:
    """Each function once, in the lesson's order; none if the whole lesson is meant."""
    return [] if "" in wanted else [section.name for section in read(lesson).sections if section.name in wanted]


def nearest(word: str, count: int = 5) -> list[str]:
    """Names that look like the word.

    >>> nearest("indexng")[0], nearest("broadcast_shape")[0]
    ('indexing', 'broadcast_shapes')
    """
    everything = [*names(), *functions(), *(name.rpartition(".")[2] for name in apis()), *titles(), *numbers()]
    return difflib.get_close_matches(word, dict.fromkeys(everything), n=count, cutoff=0.5)


# ---- the tables: name -> [(lesson, function)]; function "": the whole lesson ---------------------------------------


def names() -> dict[str, list[tuple[str, str]]]:
    return {name: [(name, "")] for name in MODULES}


@functools.cache
def numbers() -> dict[str, list[tuple[str, str]]]:
    return collect(lambda lesson: [(number, s.name) for s in lesson.sections for number in s.numbers])


@functools.cache
def functions() -> dict[str, list[tuple[str, str]]]:
    return collect(lambda lesson: [(section.name, section.name) for section in lesson.sections[1:]])


@functools.cache
def apis() -> dict[str, list[tuple[str, str]]]:
    """Names of libraries in the examples, in full (torch.nn.functional.pad), and methods of tensors (Tensor.view)."""

    def rows(lesson: Lesson) -> list[tuple[str, str]]:
        code = [(p.text, s.name) for s in lesson.sections for p in s.pieces if p.kind == "example"]
        return [(api, function) for text, function in code for api in apis_in(text)]

    return collect(rows)


def apis_in(code: str) -> list[str]:
    """
    >>> apis_in("F.pad(x, (1, 1)).view(2), torch.ones(2).sum(), model.fit(x)")
    ['torch.nn.functional.pad', 'torch.ones', 'Tensor.view', 'Tensor.sum']
    """
    from torch import Tensor  # here, because it takes a second

    full = [name.split(".", 1) for name in API.findall(code)]
    methods = [name for name in METHOD.findall(API.sub("x", code)) if hasattr(Tensor, name)]
    return [f"{SHORT.get(head, head)}.{rest}" for head, rest in full] + [f"Tensor.{name}" for name in methods]


@functools.cache
def titles() -> dict[str, list[tuple[str, str]]]:
    """The lessons' titles, English and Chinese, and the course's own titles of each number."""

    def rows(lesson: Lesson) -> list[tuple[str, str]]:
        numbered = [(lesson.course[n], s.name) for s in lesson.sections for n in s.numbers]
        return [(lesson.title, ""), (lesson.title_zh, ""), *numbered]

    return collect(rows)


def collect(rows_of) -> dict[str, list[tuple[str, str]]]:
    table: dict[str, list[tuple[str, str]]] = {}
    for name in MODULES:
        for key, function in rows_of(read(name)):
            table.setdefault(key, []).append((name, function))
    return table
