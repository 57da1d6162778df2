"""One isolated environment and one test session a chapter.

    nox                                     # lint, and the tests of every chapter
    nox -l                                  # what there is
    nox -s ch06                             # the tests of one chapter
    nox -s ch06 -- --device cuda -k resume  # words after -- go to pytest
    nox -s train -- ch06 --arch mobilenet   # a chapter's train.py in that chapter's environment
    nox -s mutants -- ch06 -k smoothing     # deliberate mistakes, each of which a test must notice

Environments lie in .nox/ and are kept. With uv (pip install "nox[uv]") they share their packages by hard links, so
that the first costs one PyTorch and each further one a second. UV_TORCH_BACKEND=cpu|cu130|auto chooses another build.
DETECTRON2=WHAT (anything pip installs) adds Detectron2 to the environment of ch08.
"""

import ast
import itertools
import os
import re
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
CHAPTERS = {path.name[:4]: path for path in sorted(ROOT.glob("ch[0-9][0-9]_*")) if (path / "requirements.txt").exists()}
RUFF = "ruff==0.17.6"
SHARED = ("utils.py", "pictures.py", "compare.py")  # copied into the chapters that need them
nox.options.sessions = ["lint", *CHAPTERS]


def headline(chapter: Path) -> str:
    """The chapter's title: the first line of its README."""
    return (chapter / "README.md").read_text("utf-8").splitlines()[0].lstrip("# ")


def add_test_session(name: str, chapter: Path) -> None:
    def tests(session: nox.Session) -> None:
        session.chdir(chapter)
        session.install("-r", "requirements.txt")
        for extra in sorted(chapter.glob("requirements-*.txt")):  # optional parts, built here with an older setuptools
            session.log(f"{extra.name}: what has to be compiled takes some minutes the first time")
            session.install("setuptools<81", "wheel")
            session.install("--no-build-isolation", "-r", extra.name, env={"CFLAGS": os.getenv("CFLAGS", "-g0 -O1")})
        if (chapter / "mmcv_check.py").exists():
            session.run("python", "mmcv_check.py")
        if name == "ch08" and os.getenv("DETECTRON2"):  # whatever pip takes: a folder, a wheel, an address
            session.install("setuptools<81", "wheel", "ninja")
            session.install("--no-build-isolation", os.environ["DETECTRON2"])
        session.run("python", "-m", "pytest", *session.posargs)

    tests.__doc__ = f"Test {chapter.name}: {headline(chapter)}"
    nox.session(name=name)(tests)


for _name, _chapter in CHAPTERS.items():
    add_test_session(_name, _chapter)


def chapter_python(session: nox.Session, name: str) -> str:
    """-> the Python of that chapter's environment, which is built if it is not there yet."""
    if name[:4] not in CHAPTERS:
        session.error(f"there is no chapter {name!r}; there are: {', '.join(CHAPTERS)}")
    python = ROOT / ".nox" / name[:4] / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    words = (sys.executable, "-m", "nox", "-f", str(ROOT / "noxfile.py"), "-s", name[:4], "--install-only")
    session.run(*words, external=True, silent=python.exists())
    return str(python)


@nox.session(venv_backend="none")
def train(session: nox.Session) -> None:
    """Run a chapter's train.py in its environment: nox -s train -- ch06 --arch mobilenet"""
    name, *words = session.posargs or [""]
    python = chapter_python(session, name)
    session.chdir(CHAPTERS[name[:4]])
    session.run(python, "train.py", *words, external=True)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure the speed of a chapter, or of all that can: nox -s bench -- ch06 --arch resnet18 --precision bf16"""
    name, *words = session.posargs or [""]
    able = [key for key, path in CHAPTERS.items() if (path / "bench.py").exists()]
    if name and name[:4] not in able:
        session.error(f"nothing to measure in {name!r}; there is in: {', '.join(able)}")
    for chapter in [name[:4]] if name else able:
        python, folder = chapter_python(session, chapter), CHAPTERS[chapter]
        session.chdir(folder)
        alone = "__main__" in (folder / "bench.py").read_text("utf-8")  # ch13 measures more than training
        session.run(python, *(["bench.py"] if alone else ["train.py", "--bench"]), *words, external=True)


@nox.session(venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Check that tests notice deliberate mistakes, in one chapter or in all: nox -s mutants -- ch06 -k smoothing"""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), session.posargs))
    listed, failed = [key for key, path in CHAPTERS.items() if (path / "tests" / "mutants.toml").exists()], []
    for name in names or listed:
        python = chapter_python(session, name)
        words, fine = session.posargs[len(names) :], [0] if names else [0, 5]  # 5: -k matches nothing there
        try:
            session.run(python, ROOT / "mutants.py", CHAPTERS[name[:4]], *words, external=True, success_codes=fine)
        except nox.command.CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"not all mistakes were noticed: {', '.join(failed)}")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, that copies of shared files are the same, and that LESSONS.md and the READMEs name what there is."""
    session.install(RUFF)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    faults = [*differing_copies(), *broken_links(), *missing_names()]
    if faults:
        session.error("\n".join(["", *faults]))
    session.log("copies of shared files, links and lesson rows: all right")


def differing_copies() -> list[str]:
    """Of the files that are the same wherever they stand, those that are not. (compare.py of ch03 and ch04 is another.)"""
    faults = []
    for name in SHARED:
        copies = {path: path.read_bytes() for path in sorted(ROOT.glob(f"ch*_*/{name}"))}
        copies = {path: text for path, text in copies.items() if b"the same, byte for byte" in text}
        first = next(iter(copies))
        for path, text in copies.items():
            if text != copies[first]:
                faults.append(f"{path.relative_to(ROOT)} differs from {first.relative_to(ROOT)}")
    return faults


def broken_links() -> list[str]:
    """Links and pictures in Markdown files that lead to no file."""
    faults = []
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("ch*_*/*.md")]):
        text = page.read_text("utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                faults.append(f"{page.relative_to(ROOT)}: the link to {target} leads nowhere")
    return faults


def missing_names() -> list[str]:
    """Files in the rows of LESSONS.md that are not there, and functions or classes that are not in the file named before."""
    faults = []
    for number, line in enumerate((ROOT / "LESSONS.md").read_text("utf-8").splitlines(), 1):
        path = None
        for word in re.findall(r"`([^`]+)`", line) if line.startswith("|") else []:
            if "/" in word or word.endswith(".py"):
                path = ROOT / word
                if not path.is_file():
                    faults.append(f"LESSONS.md:{number}: there is no {word}")
                    path = None
            elif path and path.suffix == ".py" and word not in names_in(path):
                faults.append(f"LESSONS.md:{number}: {path.relative_to(ROOT)} has no {word}")
    return faults


def names_in(path: Path) -> set[str]:
    """The functions, classes, methods (Class.method) and constants of a module."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
