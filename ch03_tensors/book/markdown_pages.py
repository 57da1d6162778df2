"""The Markdown pages of the repository, and the files that they link to, as pages beside the lessons."""

import os
import re
import shutil
from pathlib import Path

import markdown
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

from book import flowchart
from book.notebook import SUFFIX
from book.pieces import read
from book.web import save_page

PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".svg"}
CHINESE = SUFFIX["zh"]  # README.zh-CN.md
TAG = re.compile(r"<(?:a|img)\b[^>]*>")
TARGET = re.compile(r'\b(href|src)="([^"]*)"')
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
LESSON = re.compile(r"ch03_tensors/lessons/(\w+)\.py")


def write_pages(folder: Path, templates, root: Path, names: list[str], languages: list[str]) -> list[dict]:
    """Writes the pages below folder/pages -> the rows of the search index; their order is that of the index page."""
    found = sorted([*root.glob("*.md"), *root.glob("ch*_*/*.md")], key=lambda path: (path.parent != root, path))
    linked: set[str] = set()
    rows = []
    for path in found:
        name, is_chinese = path.relative_to(root).as_posix().removesuffix(".md"), path.stem.endswith(CHINESE)
        language = "zh" if is_chinese else "en"
        bare = name.removesuffix(CHINESE)
        both = (root / f"{bare}.md").exists() and (root / f"{bare}{CHINESE}.md").exists()
        if both and language not in languages:
            continue
        text = path.read_text("utf-8")
        body = rewritten(to_html(text), name, root, names, language, linked)
        page = {"title": title_of(text), "body": Markup(body)}
        if not both:
            page["others"] = {}
        save_page(folder, f"pages/{name}.html", templates, "page.html", language, languages, **page)
        if not is_chinese:
            chinese = title_of((root / f"{bare}{CHINESE}.md").read_text("utf-8")) if both else page["title"]
            keys = f"{page['title']} {chinese} {bare}".lower()
            row = {"kind": "page", "en": page["title"], "zh": chinese, "page": f"pages/{bare}", "at": "", "keys": keys}
            rows.append(row | {"both": both})
    for target in sorted(linked):
        write_linked(folder, templates, root, target, languages)
    return rows


def title_of(text: str) -> str:
    """The first heading, without marks.

    >>> title_of("<!-- x -->\\n# The `title` of [it](a.md)\\n")
    'The title of it'
    """
    heading = re.search(r"^# (.*)$", text, re.M)
    return re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]) if heading else ""


def to_html(text: str) -> str:
    """Markdown as GitHub shows it: tables, fences in colour, the same names for headings, Mermaid's charts as pictures."""
    text = MERMAID.sub(lambda fence: flowchart.svg(fence[1]) or fence[0], text)
    extensions = ["tables", "fenced_code", "codehilite", "toc", "sane_lists"]
    settings = {"toc": {"slugify": slug}, "codehilite": {"guess_lang": False, "css_class": "highlight"}}
    return markdown.markdown(text, extensions=extensions, extension_configs=settings)


def slug(heading: str, separator: str = "-") -> str:
    """The name that GitHub gives a heading.

    >>> slug("Your own data, 你的数据 (CSV)")
    'your-own-data-你的数据-csv'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def rewritten(body: str, name: str, root: Path, names: list[str], language: str, linked: set[str]) -> str:
    """The page with its links turned to where things lie in the site; what else is linked is added to `linked`."""

    def turn(match: re.Match) -> str:
        address = new_address(match[2], name, root, names, language, linked)
        return f'{match[1]}="{address}"'

    return TAG.sub(lambda tag: TARGET.sub(turn, tag[0]), body)


def new_address(target: str, name: str, root: Path, names: list[str], language: str, linked: set[str]) -> str:
    """Where a link of the page `name` leads in the site: a page, a lesson, a picture, or a file in colours."""
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return target
    up = "../" * name.count("/")
    there = Path(os.path.normpath(Path(name).parent / path)).as_posix()
    end = f"#{anchor}" if anchor else ""
    lesson = LESSON.fullmatch(there)
    if lesson and lesson[1] in names:
        return f"../{up}lessons/{lesson[1]}{SUFFIX[language]}.html{at_line(lesson[1], anchor)}"
    if (root / there / "README.md").is_file():
        there, end = f"{there}/README{SUFFIX[language]}.md", ""
    elif (root / there).is_dir():
        linked |= {there, *files_below(root, there)}
        return f"{up}{there}.html"
    if there.startswith("..") or not (root / there).is_file():
        return target  # nox -s lint says so
    if there.endswith(".md"):
        return f"{up}{there.removesuffix('.md')}.html{end}"
    linked.add(there)
    return f"{up}{there}" if is_copied(there) else f"{up}{there}.html{end}"


def files_below(root: Path, folder: str) -> list[str]:
    """The text files and pictures of a folder, without what Python leaves there."""
    paths = sorted(path for path in (root / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [
        path.relative_to(root).as_posix() for path in paths if is_copied(path.name) or b"\0" not in path.read_bytes()
    ]


def is_copied(path: str) -> bool:
    return Path(path).suffix in PICTURES or path.endswith(".html")


def at_line(name: str, anchor: str) -> str:
    """The function of a lesson that begins in the line `L37`, as an anchor; "" for a helper.

    >>> at_line("indexing", "") == at_line("indexing", "L1") == ""
    True
    """
    lines = (Path(__file__).parent.parent / "lessons" / f"{name}.py").read_text("utf-8").splitlines()
    line = lines[int(anchor[1:]) - 1] if re.fullmatch(r"L\d+", anchor) and int(anchor[1:]) <= len(lines) else ""
    found = re.match(r"(?:def|class) (\w+)", line)
    return f"#{found[1]}" if found and any(section.name == found[1] for section in read(name).sections) else ""


def write_linked(folder: Path, templates, root: Path, target: str, languages: list[str]) -> None:
    """A picture or a page as it is; a folder as a list; any other file in colours, with a name for each line (L37)."""
    if is_copied(target):
        (folder / "pages" / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / target, folder / "pages" / target)
        return
    body = list_of(root, target) if (root / target).is_dir() else in_colours(root / target)
    page = {"title": target, "body": Markup(f"<h1>{target}</h1>\n{body}"), "others": {}}
    save_page(folder, f"pages/{target}.html", templates, "page.html", "en", languages, **page)


def list_of(root: Path, folder: str) -> str:
    """The files of a folder as links, from the page that lies beside it."""
    up = len(Path(folder).parent.as_posix()) + 1 if "/" in folder else 0
    names = [(name, name if is_copied(name) else f"{name}.html") for name in files_below(root, folder)]
    return "<ul>" + "".join(f'<li><a href="{page[up:]}">{name}</a></li>' for name, page in names) + "</ul>"


def in_colours(path: Path) -> str:
    code = path.read_text("utf-8")
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    lines = highlight(code, lexer, HtmlFormatter(nowrap=True)).splitlines()
    numbered = "\n".join(f'<span id="L{number}">{line}</span>' for number, line in enumerate(lines, start=1))
    return f'<div class="highlight"><pre>{numbered}</pre></div>'
