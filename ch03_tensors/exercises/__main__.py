"""The chapter's exercises: texts, hints, checkers and worked solutions, in English and Chinese.

    python -m exercises                 # the list, and which of them are solved
    python -m exercises 2               # the text of exercise 2
    python -m exercises check 2         # right, or in one line what is wrong (exit status 1)
    python -m exercises hint 2          # the first hint; the second: hint 2 2
    python -m exercises solution 2      # the worked solution
    python -m exercises --lang zh 2     # in Chinese

You edit exercises/NN_name.py. Of the same name are checks/NN_name.py (TITLE, TEXT, HINTS; NAME, the function to write; check,
which takes that function and returns None or what is wrong with it; MISTAKES, for the tests) and solutions/NN_name.py.
This file is the same, byte for byte, in every chapter (`nox -s lint` checks that).
"""

import argparse
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

import language

FOLDER = Path(__file__).parent
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))  # the files to be edited
Pair = tuple[str, str]  # a text in English, and in Chinese


def say(pair: Pair) -> str:
    """The one of two texts that is in the current language."""
    return pair[language.current() == "zh"]


def load(path: Path) -> ModuleType:
    """Runs a file anew -> its module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checks_of(path: Path) -> ModuleType:
    return load(FOLDER / "checks" / path.name)


def fault(path: Path, checks: ModuleType) -> str | None:
    """What is wrong with the function in a file, in one line of the current language; None if it is right."""
    try:
        found = checks.check(getattr(load(path), checks.NAME))
    except NotImplementedError:
        return say((f"{checks.NAME} is not written yet", f"{checks.NAME} 还没有写"))
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        lines += [error.lineno] if isinstance(error, SyntaxError) else []
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if lines:
            return say((f"line {lines[-1]}: {what}", f"第 {lines[-1]} 行：{what}"))
        return say((f"what {checks.NAME} returns does not fit: {what}", f"{checks.NAME} 的返回值不合要求：{what}"))
    return found and say(found)


def show(path: Path) -> None:
    checks, number = checks_of(path), int(path.name[:2])
    print(f"{number}. {checks.TITLE[language.current()]}\n\n{checks.TEXT[language.current()].strip()}\n")
    print(say((f"Edit exercises/{path.name}, then:", f"编辑 exercises/{path.name}，然后运行：")))
    print(f"python -m exercises check {number}")


def show_list() -> None:
    for path in PATHS:
        checks = checks_of(path)
        state = say(("to do ", "未完成")) if fault(path, checks) else say(("solved", "已完成"))
        print(f"{int(path.name[:2]):>3}  {state}  {checks.TITLE[language.current()]}")


def check(path: Path) -> int:
    """-> 0 if the exercise is solved, else 1."""
    found = fault(path, checks_of(path))
    print(found or say(("right", "正确")))
    return int(found is not None)


def hint(path: Path, number: int) -> None:
    hints = checks_of(path).HINTS[language.current()]
    number = min(max(number, 1), len(hints))
    print(say((f"Hint {number} of {len(hints)}: ", f"提示 {number}（共 {len(hints)} 条）：")) + hints[number - 1])


def main(words: list[str]) -> int:
    language.choose(words)
    parser = argparse.ArgumentParser(
        prog="python -m exercises", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="[check|hint|solution] [NUMBER] [HINT]")
    language.add_language_flag(parser)
    words = parser.parse_args(words).words
    action = words.pop(0) if words and words[0] in ("check", "hint", "solution") else "show"
    if not words and action == "show":
        show_list()
        return 0
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    path = next((path for path in PATHS if numbers and int(path.name[:2]) == numbers[0]), None)
    if path is None or len(numbers) != len(words):
        parser.error(say((f"which exercise? 1 to {len(PATHS)}", f"哪一道练习？1 到 {len(PATHS)}")))
    if action == "check":
        return check(path)
    if action == "hint":
        hint(path, numbers[1] if len(numbers) > 1 else 1)
    elif action == "solution":
        print((FOLDER / "solutions" / path.name).read_text("utf-8").rstrip())
    else:
        show(path)
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
