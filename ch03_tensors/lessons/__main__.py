"""Lists the lessons, finds and plays some of them, or makes notebooks or pages of them.

    python -m lessons                           the list
    python -m lessons indexing                  a lesson; also by number (3-19), function (pca), torch name (gather),
                                                title (创建)
    python -m lessons all --pictures runs/lessons
    python -m lessons --notebook notebooks      a notebook a lesson; names after it: only these
    python -m lessons --html pages              pages that open from the folder: pages/index.html
    python -m lessons indexing --lang zh        in Chinese, as far as it is translated

Playing prints each explanation, the function that it is about, then each example with what it really prints now. Where
that differs from what the lesson says it prints, both are shown and the exit status is 1.
"""

import argparse
import doctest
import os
import re
import sys
from pathlib import Path

from book.find import find, nearest
from book.pieces import Lesson, Section, read
from book.translate import LANGUAGES, translate, update
from language import current
from lessons import MODULES, load


def list_lessons() -> None:
    """One lesson a line: its name, its titles; below it the course's numbers and titles, and the functions."""
    for lesson in map(read, MODULES):
        print(f"{lesson.name:<19} {lesson.title} · {lesson.title_zh}")
        for number, title in lesson.course.items():
            functions = [section.name for section in lesson.sections if number in section.numbers]
            print(f"    {number:<5} {title}: {', '.join(functions)}")


class Player(doctest.DocTestRunner):
    """Runs the examples of one docstring, and prints each with its real output."""

    def __init__(self):
        super().__init__(verbose=False)
        self.differing = 0

    # doctest catches what is printed while an example runs, so these write to `out`, the real output.

    def report_start(self, out, test, example):
        out(indented(">>> " + "\n... ".join(example.source.splitlines())))

    def report_success(self, out, test, example, got):
        out(indented(got))

    def report_failure(self, out, test, example, got):
        self.differing += 1
        out(indented(got) + "    !! here the lesson says:\n" + indented(example.want))

    def report_unexpected_exception(self, out, test, example, exc_info):
        self.differing += 1
        out(f"    !! raised {exc_info[0].__name__}: {exc_info[1]}; here the lesson says:\n" + indented(example.want))


def indented(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def play(name: str, functions: list[str], folder: Path, language: str) -> int:
    """Plays one lesson, or some functions of it; -> the number of examples that differed.

    A whole lesson saves its pictures below `folder`.
    """
    lesson, module = read(name), load(name)
    titles = f"{lesson.title} · {lesson.title_zh}" if language == "en" else lesson.title_zh
    print(f"\n{'=' * 100}\n{name}: {titles}\n{'=' * 100}")
    player = Player()
    if not functions:
        play_section(player, lesson, lesson.start, language)
    print("\n" + indented(lesson.setup).rstrip("\n"))
    for section in lesson.sections[1:]:
        if not functions or section.name in functions:
            print(f"\n--- {section.name} ({', '.join(section.numbers)}) ---")
            play_section(player, lesson, section, language)
            if section.name in lesson.figures and not functions:
                folder.mkdir(parents=True, exist_ok=True)
                print(f"\npicture: {getattr(module, lesson.figures[section.name])(folder)}")
    return player.differing


def play_section(player: Player, lesson: Lesson, section: Section, language: str) -> None:
    """Prints a section piece by piece: text, source, an example as it runs."""
    names = dict(vars(load(lesson.name)))  # the examples of one section share the names they define, as in a session
    before = ""
    for piece in section.pieces:
        if piece.kind == "example":
            if before != "example":
                print()
            one = doctest.DocTest([piece.example], {}, section.name, None, piece.example.lineno, None)
            one.globs = names
            player.run(one, out=sys.stdout.write, clear_globs=False)
        elif piece.kind in ("source", "helper"):
            print("\n" + indented(piece.text).rstrip("\n"))
        elif piece.kind == "text":
            print("\n" + "\n".join(wrapped(translate(piece.text, language))))
        else:
            print("\n" + translate(piece.text, language))
        before = piece.kind


def wrapped(text: str, width: int = 100) -> list[str]:
    """Lines of at most `width` columns. A Chinese character takes two, and a line may end after any of them.

    >>> wrapped("a bc 张量", width=5)
    ['a bc', '张量']
    """
    lines, columns = [""], 0
    for word in words_of(text):
        size = sum(1 + (character > "\u2e7f") for character in word)
        if columns and columns + len(word.rstrip()) > width or columns + size - word.endswith(" ") > width and columns:
            lines, columns = [*lines, ""], 0
        lines[-1] += word
        columns += size
    return [line.rstrip() for line in lines]


def words_of(text: str) -> list[str]:
    """Latin words with the space after them, Chinese characters with the marks after them."""
    return re.findall(r"[\u2e80-\uffef][，。：；！？、）》」”]* ?|[^\s\u2e80-\uffef]+ ?|\s", text)


def chosen(words: list[str]) -> list[tuple[str, list[str]]]:
    """What the words mean: lessons, each with the functions to play (none: all). A word with several meanings lists them."""
    if words == ["all"]:
        return [(name, []) for name in MODULES]
    found = []
    for word in words:
        hits = find(word)
        if not hits:
            near = nearest(word)
            raise SystemExit(f"error: no lesson is about {word!r}; near to it: {', '.join(near) or 'nothing'}")
        if len(hits) > 1:
            print(f"{word} is in several lessons; play one of them: python -m lessons NAME")
            for name, functions in hits.items():
                print(f"    {name:<19} {', '.join(functions) or read(name).title}")
            raise SystemExit(0)
        found += hits.items()
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m lessons", description=summary, epilog=epilog, formatter_class=kind)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="LESSON",
        help="a name, number, function, torch name or title; `all`; none: the list",
    )
    parser.add_argument("--pictures", default="runs/lessons", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--notebook", metavar="DIR", help="write a notebook a lesson")
    parser.add_argument("--html", metavar="DIR", help="write pages, which need no server and no internet access")
    parser.add_argument("--markdown", metavar="ROOT", help="with --html: the Markdown pages below ROOT too")
    parser.add_argument("--lang", choices=LANGUAGES, help="default: as LANG says; --html: both")
    parser.add_argument("--catalogue", action="store_true", help="bring the catalogue of translations up to date")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    language = args.lang or current()
    if args.catalogue:
        return update() or 0
    lessons = chosen(args.words or ["all"])
    names = [name for name in MODULES if name in dict(lessons)]  # each once, in the course's order
    if args.notebook:
        from book.notebook import write_notebooks

        return write_notebooks(Path(args.notebook), names, language)
    if args.html:
        from book.web import write_site

        languages = [args.lang] if args.lang else list(LANGUAGES)
        return write_site(Path(args.html), names, languages, args.markdown)
    if not args.words:
        return list_lessons() or 0
    differing = sum(play(name, functions, Path(args.pictures), language) for name, functions in lessons)
    if differing:
        print(f"\n{differing} example(s) printed something else than the lesson says (look for !!)")
    return 1 if differing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # as in `python -m lessons pca | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
