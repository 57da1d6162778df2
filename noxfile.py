"""One isolated environment and one test session a chapter.

    nox                                     # lint, and the tests of every chapter
    nox -l                                  # what there is
    nox -s ch06                             # the tests of one chapter
    nox -s ch06 -- --device cuda -k resume  # words after -- go to pytest
    nox -s train -- ch06 --arch mobilenet   # a chapter's train.py in that chapter's environment
    nox -s bench -- --page                  # the speed of all chapters beside the plain loop: BENCHMARKS.md
    nox -s gpu -- --minutes 25              # measures a GPU: tests, speeds, tables; --device cpu --dry tries it without
    nox -s mutants -- ch06 -k smoothing     # deliberate mistakes, each of which a test must notice
    nox -s messages                         # the catalogues of the programs' Chinese messages
    nox -s anchors                          # the line numbers of the links in LESSONS.md and CORRECTIONS.md

    nox -P 3.12 -s ch06                     # with another Python

Environments lie in .nox/ and are kept. With uv (pip install "nox[uv]") they share their packages by hard links, so
that the first costs one PyTorch and each further one a second. Nothing is compiled.

On Linux without a GPU, PyTorch's CPU builds are installed (0.2 GB instead of 3), if their index can be reached; with
UV_TORCH_BACKEND=cpu|cu130|auto uv takes the builds that it names. ch08 gets Detectron2 from GitHub, if that can be reached;
DETECTRON2=WHAT names another source (an address, a folder, a wheel), DETECTRON2=no leaves it out.
"""

import ast
import contextlib
import functools
import itertools
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
CHAPTERS = {path.name[:4]: path for path in sorted(ROOT.glob("ch[0-9][0-9]_*")) if (path / "requirements.txt").exists()}
XDIST = "pytest-xdist==3.8.0"
LINT = ("ruff==0.17.6", "uv", "nox", "pytest==9.2.0", XDIST, "polib==1.2.0")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DETECTRON2 = "https://github.com/facebookresearch/detectron2/archive/02b5c4e295e990042a714712c21dc79b731e8833.zip"
LINKED = [ROOT / f"{name}{language}.md" for name in ("LESSONS", "CORRECTIONS") for language in ("", ".zh-CN")]
# copied into the chapters that need them
SHARED = ("utils.py", "language.py", "pictures.py", "compare.py", "exercises/__main__.py", "tests/test_exercises.py")
nox.options.sessions = ["lint", *CHAPTERS]


def headline(chapter: Path) -> str:
    """The chapter's title: the first line of its README."""
    return (chapter / "README.md").read_text("utf-8").splitlines()[0].lstrip("# ")


def add_test_session(name: str, chapter: Path) -> None:
    def tests(session: nox.Session) -> None:
        session.chdir(chapter)
        install_requirements(session)
        for extra in sorted(chapter.glob("requirements-*.txt")):  # optional parts; some want an older setuptools
            session.install("setuptools<81", "wheel")
            session.install("--no-build-isolation", "-r", extra.name)
        if name == "ch08":
            install_detectron2(session)
        link_bytecode(Path(session.virtualenv.location))
        if session.posargs:
            session.run("python", "-m", "pytest", *session.posargs)
        else:  # all of them, in two processes; in three where many tests wait for a service
            session.install(XDIST)
            words = ("-n", "3" if name == "ch13" else "2", "--dist", "worksteal")
            session.run("python", "-m", "pytest", *words, env={"OMP_NUM_THREADS": "1"})

    tests.__doc__ = f"Test {chapter.name}: {headline(chapter)}"
    nox.session(name=name)(tests)


# ---- what is installed, and from where --------------------------------------------------------------------------------


def install_requirements(session: nox.Session) -> None:
    """Installs requirements.txt: with PyTorch's CPU builds where they are enough and can be had, else with PyPI's."""
    words, uv = ["-r", "requirements.txt"], session.venv_backend == "uv"
    has_torch = any(Path(session.virtualenv.location).glob("**/site-packages/torch/version.py"))
    if not has_torch and cpu_is_enough() and can_reach(f"{CPU_INDEX}/torch/"):
        session.log("no GPU here: taking PyTorch's CPU builds")
        more, env = ([], {"UV_TORCH_BACKEND": "cpu"}) if uv else (["--extra-index-url", CPU_INDEX], {})
        try:
            return session.install(*words, *more, env=env)
        except nox.command.CommandFailed:
            session.log("the CPU builds could not be installed: taking PyPI's, which also run on a CPU")
    session.install(*words)


def cpu_is_enough() -> bool:
    """Whether PyPI's builds are made for GPUs (on Linux), there is none, and the user has not chosen a build."""
    if sys.platform != "linux" or os.getenv("UV_TORCH_BACKEND"):
        return False
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, timeout=30).returncode != 0
    except (OSError, subprocess.TimeoutExpired):
        return True


@functools.cache
def can_reach(url: str, seconds: float = 5) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return True
    except OSError:
        return False


def link_bytecode(environment: Path) -> None:
    """Gives a new environment what the newest one beside it has compiled already.

    Python compiles a package when it is first imported: some ten seconds of PyTorch. uv's environments share their files by
    hard links, and Python takes compiled code for valid by its source's time and size. So code of the very same file is linked.
    """
    site = next(environment.glob("lib/python*/site-packages"), None)
    if site is None or (site / "torch" / "__pycache__").exists():
        return
    others = environment.parent.glob(f"ch*/{site.relative_to(environment).as_posix()}/torch/__pycache__")
    for other in sorted(others, key=lambda folder: folder.stat().st_mtime)[-1:]:
        for compiled in other.parents[1].glob("**/__pycache__/*.pyc"):
            folder = site / compiled.parents[1].relative_to(other.parents[1])
            name = f"{compiled.name.partition('.')[0]}.py"
            with contextlib.suppress(OSError):  # no such file here, or no links on this disk: Python will compile it
                if (folder / name).samefile(compiled.parents[1] / name):
                    (folder / "__pycache__").mkdir(exist_ok=True)
                    (folder / "__pycache__" / compiled.name).hardlink_to(compiled)


def install_detectron2(session: nox.Session) -> None:
    """Detectron2 as plain Python, without its compiled part, which this chapter does not need. Offline: nothing.

    It has no release on PyPI. setup.py's build_py takes the Python files, --skip-build leaves the compiler out.
    """
    source = os.getenv("DETECTRON2", "")
    is_there = any(Path(session.virtualenv.location).glob("**/site-packages/detectron2/config"))
    if source == "no" or (is_there and not source):
        return
    source = source or DETECTRON2
    if source.startswith(("http://", "https://")):
        try:
            source = download(source, ROOT / ".nox" / "detectron2.zip").as_uri()
        except OSError as error:
            session.log(f"Detectron2 could not be had ({error}): its tests are skipped, those with torchvision run")
            return
    option = "--config-settings-package=detectron2:" if session.venv_backend == "uv" else "--config-settings="
    words = [f"{option}--global-option=build_py", f"{option}--build-option=--skip-build"]
    session.install("setuptools<81", "wheel")
    session.install("--no-build-isolation", *words, f"detectron2 @ {source}" if "://" in source else source)


def download(url: str, path: Path, seconds: float = 60) -> Path:
    """Writes what `url` answers to `path`. OSError if that takes longer than `seconds`, or 10 without a byte."""
    end = time.monotonic() + seconds
    with urllib.request.urlopen(url, timeout=10) as answer, open(path, "wb") as file:
        while block := answer.read(1 << 16):
            file.write(block)
            if time.monotonic() > end:
                raise TimeoutError(f"not whole after {seconds:.0f} s")
    return path


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
    """Measure the speed of a chapter, or of all that can: nox -s bench -- ch06 --arch resnet18 --precision auto; --page writes
    BENCHMARKS.md"""
    name, *words = session.posargs or [""]
    if name == "--page":
        return bench_page(session, words)
    able = [key for key, path in CHAPTERS.items() if (path / "bench.py").exists()]
    if name and name[:4] not in able:
        session.error(f"nothing to measure in {name!r}; there is in: {', '.join(able)}")
    for chapter in [name[:4]] if name else able:
        python, folder = chapter_python(session, chapter), CHAPTERS[chapter]
        session.chdir(folder)
        alone = "__main__" in (folder / "bench.py").read_text("utf-8")  # ch13 measures more than training
        session.run(python, *(["bench.py"] if alone else ["train.py", "--bench"]), *words, external=True)


def bench_page(session: nox.Session, words: list[str]) -> None:
    """Measures and writes BENCHMARKS.md and its Chinese page; with --dry (tiny sizes) they go to gpu/work/dry-page."""
    folder = "gpu/work/dry-page" if "--dry" in words else "gpu/report/page"
    device = () if "--device" in words else ("--device", "cpu" if cpu_is_enough() else "cuda")
    more = () if "--minutes" in words else ("--minutes", "120")
    measure_gpu(session, ["--plan", "page", "--report", "gpu/report/page", *device, *more, *words])
    target = [folder] if "--dry" in words else []
    session.run(sys.executable, "gpu/benchmarks.py", folder, *target, external=True)


def measure_gpu(session: nox.Session, words: list[str]) -> None:
    """gpu/measure.py, whose steps run in the chapters' environments."""
    only = words[words.index("--only") + 1] if "--only" in words[:-1] else ""
    named = [name for name in CHAPTERS if name in only]
    for name in named or [name for name in CHAPTERS if name != "ch03"]:
        python = chapter_python(session, name)
    pattern = python.replace(f"{os.sep}{name}{os.sep}", f"{os.sep}{{chapter}}{os.sep}")
    session.run(sys.executable, "gpu/measure.py", "--python", pattern, *words, external=True)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Measure a GPU, chapter by chapter: nox -s gpu -- --minutes 25; without one: nox -s gpu -- --device cpu --dry"""
    measure_gpu(session, session.posargs)


@nox.session(venv_backend="none")
def site(session: nox.Session) -> None:
    """Build the course's pages: site/index.html opens without a server and without internet access."""
    python = chapter_python(session, "ch03")
    session.chdir(CHAPTERS["ch03"])
    session.run(python, "-m", "lessons", "--html", ROOT / "site", "--markdown", ROOT, external=True)


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
def messages(session: nox.Session) -> None:
    """Bring the catalogues of the programs' messages up to date, and say what is translated."""
    session.install("polib==1.2.0")
    session.run("python", "messages.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, shared files, pins, this file, the names in LESSONS.md, and that READMEs say the same in both languages."""
    session.install(*LINT)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    for version in ("3.10", "3.14"):  # all pins fit together, with the oldest Python and with the newest
        words = ("--python-version", version, "--no-header", "requirements.txt")
        session.run("uv", "pip", "compile", *words, silent=True)
    session.run("pytest", "-q", "-n", "2", "--dist", "worksteal", "tests")
    faults = [*differing_copies(), *broken_links(), *wrong_anchors()]
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


ANCHOR = re.compile(r"\[`([^`\]]+)`\]\(([^)#]+\.py)#L(\d+)\)")  # a function's name, its file, its line


@nox.session(venv_backend="none")
def anchors(session: nox.Session) -> None:
    """Set the line numbers of the links in LESSONS.md, CORRECTIONS.md and their Chinese pages."""
    for page in LINKED:
        text = page.read_text("utf-8")
        page.write_text(
            ANCHOR.sub(lambda link: f"[`{link[1]}`]({link[2]}#L{line_of(link[1], link[2])})", text), "utf-8"
        )


def wrong_anchors() -> list[str]:
    """Links of these pages whose function is not in that file, or not in that line."""
    faults = []
    for page in LINKED:
        for name, path, line in ANCHOR.findall(page.read_text("utf-8")):
            there = line_of(name, path)
            if there != int(line):
                what = f"is in line {there}, not {line}: `nox -s anchors` sets it" if there else "is not there"
                faults.append(f"{page.name}: {path}: {name} {what}")
    return faults


def line_of(name: str, path: str) -> int:
    """The line in which a file of the repository defines that name; 0 if it does not."""
    return definitions(path).get(name, 0)


@functools.cache
def definitions(path: str) -> dict[str, int]:
    """The functions, classes, methods (Class.method) and constants of a module, and their lines."""
    lines = {}
    for node in ast.parse((ROOT / path).read_text("utf-8")).body if (ROOT / path).is_file() else []:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            lines[node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
            lines |= {f"{node.name}.{method.name}": method.lineno for method in methods}
        if isinstance(node, ast.Assign):
            lines |= {target.id: node.lineno for target in node.targets if isinstance(target, ast.Name)}
    return lines
