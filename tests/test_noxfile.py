"""noxfile.py: which builds of PyTorch it takes, and how chapter 8 gets Detectron2. Everything is served on the loopback."""

import contextlib
import http.server
import io
import os
import py_compile
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nox
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import noxfile  # noqa: E402

SETUP = """
from setuptools import Extension, setup
setup(name="detectron2", version="0.6", packages=["detectron2", "detectron2.config"],
      ext_modules=[Extension("detectron2._C", ["this_needs_a_compiler.c"])])
"""


@pytest.fixture
def server():
    """Answers for the paths in `answers` with their bytes, or with what a function gives, piece by piece."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = self.server.answers.get(self.path)
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has gone
                for piece in answer() if callable(answer) else [answer or b""]:
                    self.wfile.write(piece)

        do_HEAD = do_GET

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.url = {}, f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Session:
    """What install_requirements and install_detectron2 use of nox's session; `fails` are words that cannot be installed."""

    def __init__(self, folder, backend="uv", fails=()):
        self.virtualenv = SimpleNamespace(location=str(folder))
        self.venv_backend, self.fails, self.installed, self.said = backend, fails, [], []

    def install(self, *words, env=None):
        self.installed.append((*words, *(f"{key}={value}" for key, value in (env or {}).items())))
        if set(self.fails) & set(self.installed[-1]):
            raise nox.command.CommandFailed

    def log(self, words):
        self.said.append(words)


def make_archive() -> bytes:
    """A ZIP as GitHub makes it of a repository whose compiled part nobody can compile."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, text in {
            "setup.py": SETUP,
            "detectron2/__init__.py": "",
            "detectron2/config/__init__.py": "",
        }.items():
            archive.writestr(f"detectron2-02b5c4e/{name}", text)
    return memory.getvalue()


def test_detectron2_is_installed_without_a_compiler_and_its_tests_run(server, tmp_path):
    """The whole way, in a small copy of the repository: nox -s ch08 with the archive served on the loopback."""
    server.answers["/detectron2.zip"] = make_archive()
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    chapter = tmp_path / "ch08_coco_detectron"
    chapter.mkdir()
    (chapter / "README.md").write_text("# Eight\n")
    pytest_pin = next(
        line for line in (ROOT / chapter.name / "requirements.txt").read_text().splitlines() if "pytest" in line
    )
    (chapter / "requirements.txt").write_text(pytest_pin)
    (chapter / "test_it.py").write_text("def test_it():\n    import detectron2.config\n")
    env = os.environ | {
        "DETECTRON2": f"{server.url}/detectron2.zip",
        "UV_TORCH_BACKEND": "cpu",
        "CC": "false",
        "CXX": "false",
    }
    words = [sys.executable, "-m", "nox", "-f", tmp_path / "noxfile.py", "-s", "ch08"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["uv", "virtualenv"])
def test_detectron2s_compiled_part_is_left_out(backend, server, tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2", raising=False)
    monkeypatch.setattr(noxfile, "ROOT", tmp_path)
    (tmp_path / ".nox").mkdir()
    monkeypatch.setattr(noxfile, "DETECTRON2", f"{server.url}/detectron2.zip")
    server.answers["/detectron2.zip"] = make_archive()
    session = Session(tmp_path, backend)
    noxfile.install_detectron2(session)
    words = session.installed[-1]
    assert words[-1] == f"detectron2 @ {(tmp_path / '.nox' / 'detectron2.zip').as_uri()}"
    package = "-package=detectron2:" if backend == "uv" else "="
    assert f"--config-settings{package}--build-option=--skip-build" in words and "--no-build-isolation" in words


def test_without_detectron2_one_line_says_so(server, tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2", raising=False)
    monkeypatch.setattr(noxfile, "ROOT", tmp_path)
    (tmp_path / ".nox").mkdir()
    monkeypatch.setattr(noxfile, "DETECTRON2", f"{server.url}/gone.zip")
    session = Session(tmp_path)
    noxfile.install_detectron2(session)
    assert session.installed == [] and len(session.said) == 1 and "404" in session.said[0]
    assert "those with torchvision run" in session.said[0]


def test_detectron2_can_be_named_left_out_and_is_installed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(noxfile, "DETECTRON2", "http://127.0.0.1:9/not-asked.zip")
    session = Session(tmp_path)
    for source in ("some/folder", "detectron2-0.6-py3-none-any.whl", "git+file:///somewhere"):
        monkeypatch.setenv("DETECTRON2", source)
        noxfile.install_detectron2(session)
        assert session.installed[-1][-1] == (f"detectron2 @ {source}" if "://" in source else source)
    before = len(session.installed)
    monkeypatch.setenv("DETECTRON2", "no")
    noxfile.install_detectron2(session)
    monkeypatch.delenv("DETECTRON2")
    (tmp_path / "lib/python3.12/site-packages/detectron2/config").mkdir(parents=True)
    noxfile.install_detectron2(session)
    assert len(session.installed) == before and session.said == []


def test_a_slow_download_is_given_up(server, tmp_path):
    def drip():
        for _ in range(100):
            yield b"x" * (1 << 16)
            time.sleep(0.05)

    server.answers["/slow.zip"] = drip
    start = time.monotonic()
    with pytest.raises(OSError, match="not whole after 0 s"):
        noxfile.download(f"{server.url}/slow.zip", tmp_path / "slow.zip", seconds=0.2)
    assert time.monotonic() - start < 3


@pytest.fixture
def no_gpu(server, monkeypatch):
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(noxfile, "CPU_INDEX", server.url)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    noxfile.can_reach.cache_clear()
    server.answers["/torch/"] = b"<html>"
    return server


PLAIN = ("-r", "requirements.txt")


def test_cpu_builds_where_there_is_no_gpu(no_gpu, tmp_path):
    session = Session(tmp_path)
    noxfile.install_requirements(session)
    assert session.installed == [(*PLAIN, "UV_TORCH_BACKEND=cpu")] and "CPU builds" in session.said[0]
    session = Session(tmp_path, "virtualenv")
    noxfile.install_requirements(session)
    assert session.installed == [(*PLAIN, "--extra-index-url", no_gpu.url)]


def test_plain_builds_where_the_cpu_ones_cannot_be_had(no_gpu, tmp_path):
    session = Session(tmp_path, fails=["UV_TORCH_BACKEND=cpu"])
    noxfile.install_requirements(session)
    assert session.installed[-1] == PLAIN and "also run on a CPU" in session.said[-1]
    del no_gpu.answers["/torch/"]
    noxfile.can_reach.cache_clear()
    session = Session(tmp_path)
    noxfile.install_requirements(session)
    assert session.installed == [PLAIN]


def test_plain_builds_on_a_gpu_a_mac_or_by_choice(no_gpu, tmp_path, monkeypatch):
    def installed():
        session = Session(tmp_path)
        noxfile.install_requirements(session)
        return session.installed

    monkeypatch.setenv("UV_TORCH_BACKEND", "cu130")
    assert installed() == [PLAIN]
    monkeypatch.delenv("UV_TORCH_BACKEND")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert installed() == [PLAIN]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(noxfile.subprocess, "run", lambda *words, **more: SimpleNamespace(returncode=0))  # nvidia-smi
    assert installed() == [PLAIN]


def test_an_environment_that_has_torch_keeps_it(no_gpu, tmp_path):
    path = tmp_path / "lib/python3.12/site-packages/torch/version.py"
    path.parent.mkdir(parents=True)
    path.touch()
    session = Session(tmp_path)
    noxfile.install_requirements(session)
    assert session.installed == [PLAIN] and session.said == []


# ---- the lessons' pages -----------------------------------------------------------------------------------------------


def test_links_to_functions_lead_to_their_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(noxfile, "ROOT", tmp_path)
    page = tmp_path / "LESSONS.md"
    monkeypatch.setattr(noxfile, "LINKED", [page])
    noxfile.definitions.cache_clear()
    (tmp_path / "a.py").write_text('"""A page."""\n\nONE = 1\n\n\nclass Net:\n    def forward(self):\n        pass\n')
    page.write_text("[`Net`](a.py#L6) [`Net.forward`](a.py#L2) [`ONE`](a.py#L3) [`gone`](a.py#L1) [`Net`](b.py#L6)\n")
    assert noxfile.wrong_anchors() == [
        "LESSONS.md: a.py: Net.forward is in line 7, not 2: `nox -s anchors` sets it",
        "LESSONS.md: a.py: gone is not there",
        "LESSONS.md: b.py: Net is not there",
    ]
    noxfile.definitions.cache_clear()


def test_site_builds_the_lessons_and_the_markdown_pages_into_a_folder_that_git_ignores(monkeypatch):
    ran = []

    class Here:
        chdir = staticmethod(lambda folder: ran.append(folder.name))
        run = staticmethod(lambda *words, **options: ran.append(words))

    monkeypatch.setattr(noxfile, "chapter_python", lambda session, name: f"python of {name}")
    noxfile.site(Here())
    assert ran[0] == "ch03_tensors"
    assert ran[1] == ("python of ch03", "-m", "lessons", "--html", ROOT / "site", "--markdown", ROOT)
    assert "site/" in (ROOT / ".gitignore").read_text().splitlines()


# ---- measuring --------------------------------------------------------------------------------------------------------


class Measuring:
    """A session that notes what it is told to run."""

    def __init__(self, *words):
        self.posargs, self.ran = list(words), []

    def run(self, *words, external):
        self.ran.append(words[1:])


@pytest.fixture
def environments(monkeypatch):
    built = []

    def build(session, name):
        built.append(name)
        return str(ROOT / ".nox" / name / "bin" / "python")

    monkeypatch.setattr(noxfile, "chapter_python", build)
    return built


def test_gpu_measures_in_the_environments_of_the_chapters_it_needs(environments):
    session = Measuring("--only", "ch06,ch12", "--minutes", "5")
    noxfile.measure_gpu(session, session.posargs)
    assert environments == ["ch06", "ch12"]
    python = str(ROOT / ".nox" / "{chapter}" / "bin" / "python")
    assert session.ran == [("gpu/measure.py", "--python", python, "--only", "ch06,ch12", "--minutes", "5")]
    noxfile.measure_gpu(Measuring(), [])
    assert environments[2:] == [name for name in noxfile.CHAPTERS if name != "ch03"]


def test_bench_page_measures_and_then_writes_the_page(environments, monkeypatch):
    monkeypatch.setattr(noxfile, "cpu_is_enough", lambda: True)
    session = Measuring()
    noxfile.bench_page(session, ["--only", "ch06"])
    (measure, *words), page = session.ran
    assert measure == "gpu/measure.py" and "cpu" in words and words[-2:] == ["--only", "ch06"]
    assert words[words.index("--report") + 1] == "gpu/report/page" == page[1] and len(page) == 2
    session = Measuring()
    noxfile.bench_page(session, ["--only", "ch06", "--dry", "--minutes", "3", "--device", "cuda"])
    assert session.ran[0].count("--minutes") == session.ran[0].count("--device") == 1
    assert session.ran[1] == ("gpu/benchmarks.py", "gpu/work/dry-page", "gpu/work/dry-page")


def test_a_new_environment_takes_what_another_one_compiled_of_the_same_files(tmp_path):
    old, new = (tmp_path / name / "lib" / "python3.11" / "site-packages" for name in ("ch03", "ch04"))
    for name in ("torch/__init__.py", "torch/nn.py", "other/__init__.py"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("x = 1\n")
        (new / name).hardlink_to(old / name) if "torch" in name else (new / name).write_text("x = 2\n")
    for source in old.rglob("*.py"):
        py_compile.compile(str(source))
    noxfile.link_bytecode(tmp_path / "ch04")
    assert len(list(new.rglob("torch/__pycache__/*.pyc"))) == 2
    assert not (new / "other" / "__pycache__").exists(), "another file, which Python must compile itself"
    noxfile.link_bytecode(tmp_path / "ch03")  # compiled already: nothing to do, and nothing in the way
