"""A step is some commands of a chapter, run one after the other in processes of their own, in the chapter's folder, with a
time limit. What the last one prints as JSON are the step's figures."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import dataclass
from pathlib import Path

GPU = Path(__file__).resolve().parent
ROOT = GPU.parent
LIMIT, LEAST, LEAST_DRY = 3, 180, 600  # a step is ended after three times its estimate, and not before so many seconds


@dataclass(frozen=True)
class Step:
    """`minutes`: an estimate for a large GPU. In `commands`, {device}, {data}, {root}, {run}, {work} and {gpu} are filled in:
    device, data set's name, folder of data, the step's own folder, that of all steps, this one.
    `tiny` is added to the first for --dry."""

    name: str  # begins with the chapter: ch06 bench resnet18
    minutes: float
    commands: tuple[tuple[str, ...], ...]
    tiny: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # modules that must be there
    data: str = ""  # a key of DATA
    group: str = ""  # steps of the same group differ by their seed: the report has their mean
    goal: str = ""
    after: str = ""  # the step that must be done before

    @property
    def chapter(self) -> str:
        return self.name[:4]

    @property
    def folder(self) -> Path:
        return next(ROOT.glob(f"{self.chapter}_*"))


# any of these files or folders in the folder of data will do
DATA = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "weibo": ("weibo_senti_100k.csv",),
    "cmn-eng": ("cmn.txt", "cmn-eng.zip"),
}


@dataclass
class Setting:
    """How this call runs steps: where, with which Python ({chapter} is filled in), from which data, how small."""

    device: str
    work: Path
    python: str = sys.executable
    data_root: Path | None = None  # default: each chapter's own data/
    path: str = ""  # put before PYTHONPATH
    dry: bool = False

    def data_of(self, step: Step) -> Path:
        return self.data_root or step.folder / "data"

    def shown(self, command: list[str]) -> str:
        """A command as a reader types it in the chapter's folder, wherever the repository and its data lie."""
        text = " ".join(command[1:])
        return shown(text.replace(str(self.data_root), "data") if self.data_root else text)

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (self.path, os.environ.get("PYTHONPATH", ""))))
        return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "LANGUAGE": "en"}

    def folder(self, step: Step) -> Path:
        """Where the step's output goes, and below it, in run/, what its commands write."""
        return self.work / step.name.replace(" ", "-")

    def commands(self, step: Step) -> list[list[str]]:
        """The step's commands, filled in. A training whose folder has a checkpoint goes on with it."""
        run = self.folder(step) / "run"
        words = {"device": self.device, "run": str(run), "gpu": str(GPU), "root": str(self.data_root or "data")}
        words["work"] = str(self.work)
        words["data"] = "sample" if self.dry else step.data or "sample"
        filled = []
        for number, command in enumerate(step.commands):
            if self.dry:
                command = [word for word in (*command, *(step.tiny if number == 0 else ())) if word != "--compile"]
                command = ["fp32" if word == "bf16" else word for word in command]  # which few CPUs have
            command = [fill(word, words) for word in command]
            if command[0] == "train.py" and "--run" in command and (run / "last.pt").exists():
                command = ["train.py", "--resume", str(run), "--device", self.device]
            filled.append([self.python.replace("{chapter}", step.chapter), *command])
        return filled


def fill(text: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


# ---- before a step ----------------------------------------------------------------------------------------------------


def missing(setting: Setting, steps: list[Step]) -> dict[str, list[str]]:
    """-> for each chapter of these steps the modules that its Python cannot find. Nothing is imported."""
    found = {}
    for chapter in dict.fromkeys(step.chapter for step in steps):
        names = sorted({name for step in steps if step.chapter == chapter for name in ("torch", *step.needs)})
        code = f"import importlib.util as u, json; print(json.dumps([n for n in {names} if u.find_spec(n) is None]))"
        command = [setting.python.replace("{chapter}", chapter), "-c", code]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=setting.environment(), timeout=60)
            found[chapter] = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            found[chapter] = ["Python: " + shown(command[0])]
    return found


def why_not(setting: Setting, step: Step, lacks: list[str]) -> str:
    """-> why the step cannot run here; "" if it can."""
    absent = [name for name in lacks if name in ("torch", *step.needs) or name.startswith("Python")]
    if absent:
        return f"lacks {', '.join(absent)}"
    where = setting.data_of(step)
    if step.data and not setting.dry and not any((where / name).exists() for name in DATA[step.data]):
        return f"no {DATA[step.data][0]} in {where}"
    return ""


def unpack(wheels: Path, site: Path) -> list[str]:
    """Unpacks the wheels of a folder into `site` -> their names. Compiled ones work too if they are for this Python."""
    found = sorted(wheels.glob("*.whl"))
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return [wheel.name for wheel in found]


def forget(setting: Setting) -> None:
    """A new report begins anew: what earlier steps left in the folder of work is of no use to it."""
    shutil.rmtree(setting.work, ignore_errors=True)


# ---- a step -----------------------------------------------------------------------------------------------------------


def run(setting: Setting, step: Step, seconds: float) -> dict:
    """Runs the step, for `seconds` at most -> what the report says of it: status, why, seconds, commands, figures."""
    folder, commands = setting.folder(step), setting.commands(step)
    if not (folder / "run" / "last.pt").exists():  # what a stopped step left is of no use, unless training can go on
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    start, record = time.monotonic(), {"status": "done", "commands": [setting.shown(command) for command in commands]}
    for number, command in enumerate(commands):
        out, err = (folder / f"{number}.{kind}" for kind in ("out", "err"))
        left = seconds - (time.monotonic() - start)
        code = execute(command, step.folder, setting.environment(), left, out, err)
        if code != 0:
            record["status"] = "out of time" if code is None else "failed"
            record["why"] = f"after {seconds:.0f} s" if code is None else f"exit {code}: {shown(last_lines(err, out))}"
            break
    record["seconds"] = round(time.monotonic() - start, 1)
    record["figures"] = figures(folder, out) if record["status"] == "done" else {}
    return record


def execute(command, folder: Path, environment: dict, seconds: float, out: Path, err: Path) -> int | None:
    """-> the exit code, or None if the time was over: then the process and all that it started are ended."""
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        try:
            return process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:  # also when this program is stopped
            end(process)


def die_with_parent() -> None:
    """Called in the new process: if this program is killed, its step must not go on (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def end(process: subprocess.Popen, patience: float = 5) -> None:
    """Ends a process and its group; who does not listen is killed."""
    for sign in ("SIGTERM", "SIGKILL"):
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, getattr(signal, sign))
        elif process.poll() is None:  # Windows has no groups
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def shown(text: str) -> str:
    """Without the place of this repository: as seen from a chapter's folder."""
    return text.replace(str(ROOT), "..")


def last_lines(*files: Path) -> str:
    """The end of the first file that has text: most often the error."""
    texts = (path.read_text("utf-8", "replace").strip() for path in files)
    return next((text[-400:] for text in texts if text), "no output")


def figures(folder: Path, out: Path) -> dict:
    """What a step found out: the last line of its output that is a JSON object; of a test run, how its tests ended, or how
    many were found, if they were only to be found."""
    if found := re.search(r"^(\d+)(?:/\d+)? tests? collected", out.read_text("utf-8", "replace"), re.M):
        return {"tests_found": int(found[1])}
    if (tests := folder / "run" / "tests.xml").exists():
        suite = ElementTree.parse(tests).getroot().find("testsuite")
        return {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    for line in reversed(out.read_text("utf-8", "replace").splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return {}


def write_atomic(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
