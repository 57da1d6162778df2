"""Checks that a chapter's tests can fail: puts deliberate mistakes into a copy of it, one at a time, and runs the test of each.

    nox -s mutants -- ch06 -k smoothing                           # the usual way, in the chapter's environment
    .nox/ch06/bin/python mutants.py ch06_cifar10 -k smoothing     # the same

The mistakes are listed in the chapter's tests/mutants.toml:

    [[mutant]]
    name = "head-without-bias"                        # -k looks here, in `file` and in `test`
    file = "models.py"
    line = "super().__init__(features, Linear(8))"    # as it stands in the file, once; blanks at the ends do not count
    wrong = "super().__init__(features, Linear(8, bias=False))"
    test = "tests/test_models.py::test_parameters"
    why = "the classes are not equally frequent"
    after = "class VGG(nn.Module):"                   # if `line` stands there more often: the first one after this line
    seconds = 30                                      # time limit of the test (default: 120)

`line` and `wrong` may be several lines. A mistake is noticed if its test fails, crashes or takes too long, and survives if it
passes. It is an error if `line` is not in the file, or if the test does not pass in the unchanged copy. A survivor or an
error makes the exit status 1; 5 means that -k matches nothing.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

KEYS, MORE_KEYS = {"name", "file", "line", "wrong", "test", "why"}, {"after", "seconds"}
SECONDS = 120
FAILED, BROKEN, INTERNAL, NO_TEST = 1, 2, 3, 5  # pytest's exit codes: a test failed, a file could not be imported, ...


def read_list(path: Path) -> list[dict]:
    try:
        import tomllib
    except ImportError:  # Python 3.10: pytest brings tomli
        import tomli as tomllib
    if not path.exists():
        sys.exit(f"{path}: there is no such list")
    mutants = tomllib.loads(path.read_text("utf-8"))["mutant"]
    for number, mutant in enumerate(mutants, 1):
        if not KEYS <= mutant.keys() <= KEYS | MORE_KEYS:
            sys.exit(
                f"{path}: mutant {number} has the keys {set(mutant)}; there must be {KEYS}, there may be {MORE_KEYS}"
            )
    return mutants


def find(lines: list[str], wanted: str) -> list[int]:
    """The places where the line or lines `wanted` stand; blanks at the ends of a line do not count."""
    block, stripped = ([line.strip() for line in part] for part in (wanted.strip("\n").split("\n"), lines))
    return [i for i in range(len(lines)) if stripped[i : i + len(block)] == block]


def place_of(lines: list[str], mutant: dict) -> int:
    """Where the mistake is to be made. ValueError if the line is not there, or more than once."""
    places = find(lines, mutant["line"].strip("\n"))
    if "after" in mutant:
        start = find(lines, mutant["after"])
        if len(start) != 1:
            raise ValueError(f"`after` stands in the file {len(start)} times, not once: {mutant['after']}")
        places = [place for place in places if place > start[0]][:1]
    if len(places) != 1:
        raise ValueError(f"the line stands in the file {len(places)} times, not once: {mutant['line'].strip()}")
    return places[0]


def mutate(text: str, mutant: dict) -> str:
    """`text` with the mistake in it. ValueError if the line is not there, or if the result is no Python or the same.

    If `line` is written with less indentation than it has in the file, `wrong` moves to the right by the difference.
    """
    lines, line, wrong = text.split("\n"), mutant["line"].strip("\n"), mutant["wrong"].strip("\n")
    place = place_of(lines, mutant)
    indents = [len(part) - len(part.lstrip()) for part in (lines[place], line)]
    shifted = [" " * (indents[0] - indents[1]) + part for part in wrong.split("\n")] if wrong else []
    lines[place : place + len(line.split("\n"))] = shifted
    try:
        if ast.dump(ast.parse("\n".join(lines))) == ast.dump(ast.parse(text)):
            raise ValueError("`wrong` means the same as `line`")
    except SyntaxError as error:  # any test would notice that
        raise ValueError(f"with the mistake, {mutant['file']} is no Python: {error}") from None
    return "\n".join(lines)


class Record:
    """A pytest plugin: did a test pass, and could a file not be imported? The exit code alone does not say."""

    passed = broken = False

    def pytest_runtest_logreport(self, report):
        self.passed |= report.when == "call" and report.passed

    def pytest_collectreport(self, report):
        self.broken |= report.failed


def run_test(folder: Path, test: str) -> None:
    """Runs one test in this process, and ends it with pytest's exit code; with NO_TEST if all of the test was skipped."""
    code, record = INTERNAL, Record()
    try:
        if hasattr(os, "setsid"):
            os.setsid()  # its process group gets the number of this process, so that all of it can be killed
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(folder.parent / "output.txt", os.O_WRONLY)
        os.dup2(output, 1), os.dup2(output, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder.parent)
        os.chdir(folder)
        sys.path[0] = str(folder)
        import pytest

        options = ["-qx", "--tb=short", "-pno:cacheprovider", "--rootdir=.", f"--basetemp={folder.parent / 'tmp'}"]
        code = int(pytest.main([*options, test], plugins=[record]))
        code = BROKEN if record.broken else NO_TEST if code == 0 and not record.passed else code
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(code)


def kill(process, folder: Path) -> None:
    """Ends a process and all that it started: its group, and on Linux also what went into a group of its own."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        return
    groups, mark = {process.pid}, f"TMPDIR={folder.parent}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in path.read_bytes().split(b"\0"):
                groups.add(os.getpgid(int(path.parent.name)))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    process.kill()


def attempt(original: Path, mutant: dict, mistake: bool, context) -> tuple[int | None, str]:
    """Runs the mutant's test in a copy -> pytest's exit code, or None if it took too long; the last lines of its output.

    Each copy has a folder of its own, so that no compiled file of one can be taken for that of another.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:
        folder = Path(shutil.copytree(original, Path(top).resolve() / original.name))
        if mistake:
            path = folder / mutant["file"]
            path.write_text(mutate(path.read_text("utf-8"), mutant), "utf-8")
        (folder.parent / "output.txt").touch()
        process = context.Process(target=run_test, args=(folder, mutant["test"]))
        process.start()
        end = time.monotonic() + mutant.get("seconds", SECONDS)
        try:
            while process.exitcode is None and time.monotonic() < end:
                time.sleep(0.01)
            code = process.exitcode
        finally:
            kill(process, folder)
            process.join()
        lines = (folder.parent / "output.txt").read_text("utf-8", "replace").splitlines()
    return code, "\n".join(lines[-15:])


def check(original: Path, mutant: dict, fault: str, context) -> tuple[str, str]:
    """-> what became of the mistake (noticed, SURVIVED, ERROR), and what there is to say about it."""
    if fault:
        return "ERROR", f"without the mistake {mutant['test']} does not pass, so it proves nothing; {fault}"
    try:
        code, output = attempt(original, mutant, True, context)
    except (OSError, ValueError) as error:
        return "ERROR", str(error)
    if code is None or code in (FAILED, BROKEN) or code < 0:
        return "noticed", ""
    if code:
        return "ERROR", f"pytest's exit code is {code}\n{output}"
    return "SURVIVED", f"{mutant['why']}\n- {mutant['line'].strip()}\n+ {mutant['wrong'].strip()}\n{output}"


def import_libraries(chapter: Path) -> bool:
    """Imports what the chapter's files import, except its own modules -> whether this process can be forked now.

    Not if there are other threads, or if a library has a module with the name of one of the chapter's.
    """
    if not Path("/proc/self/task").exists():  # only Linux can fork with such libraries
        return False
    folders = [path for path in chapter.iterdir() if any(path.glob("*.py"))]  # not locale/, which is no module
    own = {path.stem for path in [*folders, *chapter.glob("*.py"), *chapter.glob("tests/*.py")]}
    names = {"pytest"}
    for path in [*chapter.glob("*.py"), *chapter.glob("*/*.py")]:
        for node in ast.parse(path.read_bytes()).body:
            names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module} if isinstance(node, ast.ImportFrom) and node.level == 0 else set()
    for name in sorted(name for name in names if name.split(".")[0] not in own):
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.freeze()  # or else each fork spends a second on looking for garbage in the libraries
    return len(os.listdir("/proc/self/task")) == 1 and not own & sys.modules.keys()


def run(chapter: Path, mutants: list[dict], top: Path) -> int:
    """Checks all of `mutants` -> the number that were not noticed."""
    begin, faults, results = time.monotonic(), {}, []
    lines = (chapter / ".gitignore").read_text("utf-8").splitlines()  # data, runs, caches
    ignore = shutil.ignore_patterns(*[line.strip("/ ") for line in lines])
    original = Path(shutil.copytree(chapter, top / chapter.name, ignore=ignore))  # the chapter may change meanwhile
    context = multiprocessing.get_context("fork" if import_libraries(original) else "spawn")
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
    by_seconds = sorted(mutants, key=lambda mutant: -mutant.get("seconds", SECONDS))
    for mutant in {mutant["test"]: mutant for mutant in by_seconds}.values():  # a test must keep to its shortest limit
        code, output = attempt(original, mutant, False, context)
        fault = "its time is up" if code is None else f"pytest's exit code is {code}\n{output}"
        faults[mutant["test"]] = fault if code != 0 else ""
    passed = list(faults.values()).count("")
    print(f"{passed} of {len(faults)} tests pass without mistakes, {time.monotonic() - begin:.0f} s", flush=True)
    for mutant in mutants:
        start = time.monotonic()
        result, words = check(original, mutant, faults[mutant["test"]], context)
        print(f"{result:<8} {time.monotonic() - start:5.1f} s  {mutant['file']} {mutant['name']}", flush=True)
        print(textwrap.indent(words, "    "), end="\n" if words else "", flush=True)
        results.append(result)
    noticed = results.count("noticed")
    print(f"{chapter.name[:4]}: {noticed} of {len(results)} mistakes noticed in {time.monotonic() - begin:.0f} s")
    return len(results) - noticed


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks that a chapter's tests notice deliberate mistakes.")
    parser.add_argument("chapter", type=Path, help="the chapter's folder, which has tests/mutants.toml")
    parser.add_argument("-k", metavar="WORD", default="", help="only mistakes with WORD in their name, file or test")
    args = parser.parse_args()
    chapter = args.chapter.resolve()
    mutants = read_list(chapter / "tests" / "mutants.toml")
    mutants = [m for m in mutants if args.k.lower() in f"{m['name']} {m['file']} {m['test']}".lower()]
    if not mutants:
        print(f"{chapter.name[:4]}: no mistake of the list matches {args.k!r}")
        return NO_TEST
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the test that runs
    with tempfile.TemporaryDirectory(prefix="mutants-") as top:
        tempfile.tempdir = top
        return int(run(chapter, mutants, Path(top).resolve()) > 0)


if __name__ == "__main__":
    sys.exit(main())
