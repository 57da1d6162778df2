"""Lessons as pages that open from a folder: no server, no internet access, one style sheet, one small script.

FOLDER/index.html               the lessons in the course's order; index.zh-CN.html in Chinese
FOLDER/lessons/NAME.html        a lesson; FOLDER/notebooks/NAME.ipynb its notebook, FOLDER/pictures its pictures
FOLDER/pages/...                with --markdown: the Markdown pages of the repository (markdown_pages.py)
FOLDER/assets/                  style.css, site.js, and index.js, which the search box looks into
"""

import html
import json
import re
from pathlib import Path

import jinja2
from latex2mathml.converter import convert
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from book import find
from book.notebook import SUFFIX, as_text, figures, make_notebook
from book.pieces import Lesson, Output, Section, outputs, read
from book.translate import LANGUAGES, translate

HERE = Path(__file__).parent
MARK = "assets/made-by-lessons"  # a folder with this file is ours to write into again
LIGHT, DARK = "default", "github-dark"
CHAPTERS = {
    "3": "PyTorch basics",
    "4": "First networks",
    "5": "Convolutional networks",
    "6": "Image classification",
    "9": "Generative networks",
    "10": "Sequences and language",
}


def write_site(folder: Path, names: list[str], languages: list[str], markdown: str | None = None) -> int:
    """Writes all pages; the folder must be new, empty, or made by this before."""
    from utils import fail, output_folder

    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        fail(f"{folder} holds other files; name an empty folder, or one that this made before")
    for part in ("assets", "lessons", "notebooks", "pictures"):
        output_folder(folder / part)
    templates = environment()
    write_assets(folder)
    for name in names:
        write_lesson(folder, templates, name, names, languages)
    index = search_index(names)
    pages = []
    if markdown:
        from book.markdown_pages import write_pages

        pages = write_pages(folder, templates, Path(markdown), names, languages)
    save(folder / "assets" / "index.js", f"window.INDEX = {json.dumps(index + pages, ensure_ascii=False)};\n")
    for language in languages:
        page = {"groups": groups(names), "pages": pages}
        save_page(folder, f"index{SUFFIX[language]}.html", templates, "index.html", language, languages, **page)
    print(folder / f"index{SUFFIX[languages[0]]}.html")
    return 0


def environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE / "templates")
    templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {"inline": inline, "python": coloured, "math": formula}
    return templates


def save(path: Path, text: str) -> None:
    from utils import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def save_page(folder: Path, path: str, templates, template: str, language: str, languages: list[str], **values) -> None:
    """One page at `path`, which ends with the language's suffix; the other language's page lies beside it."""
    root = "../" * path.count("/")
    bare = path.removesuffix(f"{SUFFIX[language]}.html")
    others = {other: f"{root}{bare}{SUFFIX[other]}.html" for other in languages if other != language}
    others = values.pop("others", others)
    words = {"t": lambda text: translate(text, language), "root": root, "language": language}
    here = language if language in languages else languages[0]  # a page in English only, in a site in Chinese
    words |= {"suffix": SUFFIX[here], "others": others, "LANGUAGES": LANGUAGES}
    save(folder / path, templates.get_template(template).render(words | values) + "\n")


def write_assets(folder: Path) -> None:
    """The style sheet with Pygments' colours, light and dark, the script, and the mark that this folder is ours."""
    light, dark = (HtmlFormatter(style=style) for style in (LIGHT, DARK))
    colours = light.get_style_defs(".highlight")
    by_system = dark.get_style_defs(":root:not([data-theme=light]) .highlight")
    chosen = dark.get_style_defs(":root[data-theme=dark] .highlight")
    style = (HERE / "static" / "style.css").read_text("utf-8")
    every = f"{style}\n{colours}\n@media (prefers-color-scheme: dark) {{\n{by_system}\n}}\n{chosen}\n"
    save(folder / "assets" / "style.css", every)
    save(folder / "assets" / "site.js", (HERE / "static" / "site.js").read_text("utf-8"))
    save(folder / MARK, "Made by `python -m lessons --html`, which may write here again.\n")


# ---- a lesson ------------------------------------------------------------------------------------------------------


def write_lesson(folder: Path, templates, name: str, names: list[str], languages: list[str]) -> None:
    """The page of a lesson, its notebook and its figures; its examples run once."""
    lesson = read(name)
    results, drawn = outputs(lesson), figures(lesson, folder / "pictures")
    at = names.index(name)
    around = {"before": read(names[at - 1]) if at else None, "after": read(names[at + 1]) if names[at + 1 :] else None}
    blocks = [(section, section_blocks(lesson, section, results[section.name])) for section in lesson.sections]
    for language in languages:
        save(
            folder / f"notebooks/{name}{SUFFIX[language]}.ipynb", as_text(make_notebook(name, language, results, drawn))
        )
        path = f"lessons/{name}{SUFFIX[language]}.html"
        page = {"lesson": lesson, "sections": blocks, "figures": drawn, **around}
        save_page(folder, path, templates, "lesson.html", language, languages, **page)


def section_blocks(lesson: Lesson, section: Section, results: list[Output]) -> list[dict]:
    """What stands on a page for a section: texts, formula, sources, and examples with what they show."""
    blocks, left = [], iter(results)
    for piece in section.pieces:
        if not piece.example:
            if piece.kind == "source" and section.name in lesson.formulas:
                blocks.append({"kind": "formula", "text": lesson.formulas[section.name]})
            blocks.append({"kind": piece.kind, "text": piece.text})
            continue
        output = next(left)
        if blocks and blocks[-1]["kind"] == "example" and not blocks[-1]["output"]:
            blocks[-1]["text"] += f"\n{piece.text}"
        else:
            blocks.append({"kind": "example", "text": piece.text})
        blocks[-1]["output"] = str(output)
    return blocks


def inline(text: str) -> str:
    """A paragraph as HTML: what stands between backticks is code, all else is text.

    >>> inline("a < b with `x & y`")
    Markup('a &lt; b with <code>x &amp; y</code>')
    """
    parts = re.split(r"`([^`]+)`", text)
    codes = (f"<code>{html.escape(part)}</code>" if k % 2 else html.escape(part) for k, part in enumerate(parts))
    return Markup("".join(codes))


def coloured(code: str) -> str:
    return Markup(highlight(code, PythonLexer(), HtmlFormatter()))


def formula(latex: str) -> str:
    """LaTeX as MathML, which browsers draw themselves."""
    return Markup(convert(latex, display="block"))


# ---- the index and what the search box knows -----------------------------------------------------------------------


def groups(names: list[str]) -> list[tuple[str, str, list[Lesson]]]:
    """The lessons by chapter of the course: (number, title, lessons)."""
    found: dict[str, list[Lesson]] = {}
    for name in names:
        chapters = (number.partition("-")[0] for number in read(name).course)
        found.setdefault(next(chapter for chapter in chapters if chapter in CHAPTERS), []).append(read(name))
    return [(number, CHAPTERS[number], lessons) for number, lessons in found.items()]


def search_index(names: list[str]) -> list[dict]:
    """A row for each lesson, function and API name: what is shown in each language, where it is, words to find it by."""
    rows = []
    for lesson in (read(name) for name in names):
        page = f"lessons/{lesson.name}"
        rows.append(row("lesson", lesson.title, lesson.title_zh, page, "", lesson.name, *lesson.course))
        for section in lesson.sections[1:]:
            course = [f"{number} {lesson.course[number]}" for number in section.numbers]
            shown = (f"{section.name} · {lesson.title}", f"{section.name} · {lesson.title_zh}")
            rows.append(row("function", *shown, page, section.name, *course))
    for api, places in find.apis().items():
        for name, function in places:
            if name in names:
                rows.append(row("API", f"{api} · {function}", "", f"lessons/{name}", function))
    return list({json.dumps(each): each for each in rows}.values())


def row(kind: str, english: str, chinese: str, page: str, anchor: str, *words: str) -> dict:
    keys = " ".join([english, chinese, *words]).lower()
    return {"kind": kind, "en": english, "zh": chinese or english, "page": page, "at": anchor, "keys": keys}
