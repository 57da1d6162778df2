"""Lists the lessons, or plays some of them.

    python -m lessons
    python -m lessons indexing
    python -m lessons all --pictures runs/lessons

Playing prints each explanation, then each example with what it really prints now. Where that differs from what the
lesson says it prints, both are shown and the exit status is 1.
"""

import argparse
import doctest
import sys
from pathlib import Path

from lessons import MODULES, examples, load, outline


def list_lessons() -> None:
    """One lesson a line: its name, its titles; below it the course's numbers and titles, and the functions."""
    for name in MODULES:
        lesson = outline(name)
        print(f"{name:<19} {lesson['TITLE']} · {lesson['TITLE_ZH']}")
        for number, functions in lesson["shown"].items():
            print(f"    {number:<5} {lesson['LESSONS'][number]}: {', '.join(functions)}")


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


def play(name: str, folder: Path) -> int:
    """Plays one lesson and saves its pictures below `folder`; -> the number of examples that differed."""
    lesson = load(name)
    print(f"\n{'=' * 100}\n{name}: {lesson.TITLE} · {lesson.TITLE_ZH}\n{'=' * 100}")
    player = Player()
    for test in examples(lesson):
        if test.name != lesson.__name__:
            print(f"\n--- {test.name.removeprefix(lesson.__name__ + '.')} ---")
        play_docstring(player, test)
    if hasattr(lesson, "pictures"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in lesson.pictures(folder):
            print(f"\npicture: {path}")
    return player.differing


def play_docstring(player: Player, test: doctest.DocTest) -> None:
    """Prints a docstring piece by piece: text as it stands, an example as it runs."""
    for piece in doctest.DocTestParser().parse(test.docstring):
        if isinstance(piece, str):
            text = "\n".join(line.removeprefix("    ") for line in piece.splitlines()).strip("\n")
            if text.strip():
                print(f"\n{text}\n")
        else:
            one = doctest.DocTest([piece], {}, test.name, test.filename, piece.lineno, None)
            one.globs = test.globs  # the examples of one docstring share the names they define, as in a session
            player.run(one, out=sys.stdout.write, clear_globs=False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lessons", description="Lists the lessons, or plays some of them.")
    parser.add_argument("names", nargs="*", metavar="LESSON", help="a name from the list, or `all`; none: the list")
    parser.add_argument("--pictures", default="runs/lessons", metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    if not args.names:
        list_lessons()
        return 0
    names = MODULES if args.names == ["all"] else args.names
    for name in names:
        if name not in MODULES:
            raise SystemExit(f"error: no lesson is called {name!r}; there are: {', '.join(MODULES)}")
    differing = sum(play(name, Path(args.pictures)) for name in names)
    if differing:
        print(f"\n{differing} example(s) printed something else than the lesson says (look for !!)")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
