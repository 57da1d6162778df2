"""What every training script needs and no lesson is about: flags, device, processes, run folder, samples, files, drawing.

This file is the same, byte for byte, in every chapter that has it (`nox -s lint` checks that).
"""

import argparse
import ctypes
import hashlib
import http.client
import io
import itertools
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

import language
from language import translated


def fail(message):
    """Ends the program with one line on stderr and exit status 1."""
    raise SystemExit(f"{translated('error: ')}{translated(str(message))}")


def warn(message):
    """A warning nobody can miss, printed once (by the first process)."""
    if rank() == 0:
        lines = ("!  " + line for line in translated(message).splitlines())
        print("\n".join(("", "!" * 88, *lines, "!" * 88, "")), file=sys.stderr)


def say(*words, file=None):
    """print(), from the first process only."""
    if rank() == 0:
        print(*(translated(word) if isinstance(word, str) else word for word in words), file=file, flush=True)


def start(main, stopped="stopped"):
    """Runs a script's main(). Ctrl-C and a closed pipe (`| head`) end it without a traceback, and so does a lack of memory."""
    for stream in (sys.stdout, sys.stderr):  # file names may hold bytes that are no text in this terminal's encoding
        stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        fail(stopped)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        sys.exit(1)
    except (MemoryError, torch.OutOfMemoryError):
        fail("out of memory: try a smaller --batch-size, smaller pictures or fewer --workers")


# ---- flags: the same words for the same things in every chapter -------------------------------------------------------

MAY_CHANGE = ("epochs", "device", "workers", "compile")  # the flags that --resume takes beside it


class Number:
    """The type of a flag: an int or a float from `low` (`above`: greater than it) to `high`. --help states the range."""

    def __init__(self, kind: type, low: float, high: float = math.inf, above: bool = False):
        self.kind, self.low, self.high, self.above = kind, low, high, above

    def __call__(self, text: str):
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        inside = (value > self.low if self.above else value >= self.low) and value <= self.high
        if not inside or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r}: must be {self}")
        return value

    def __str__(self) -> str:
        kind = "a whole number" if self.kind is int else "a number"
        if self.above:
            return f"{kind} above {self.low}" + (f", {self.high} at most" if self.high < math.inf else "")
        return f"{kind}, {self.low} or more" if self.high == math.inf else f"{kind} from {self.low} to {self.high}"


class Parser(argparse.ArgumentParser):
    """argparse, with the docstring's layout kept in --help, the range of each number stated, and errors of one line; both in
    the language of --lang."""

    def __init__(self, *args, **options):
        super().__init__(*args, formatter_class=Help, allow_abbrev=False, **options)
        language.add_language_flag(self)

    def parse_known_args(self, args=None, namespace=None):
        language.choose(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        fail(f"{message} (--help lists the flags)")


class Help(language.Help):
    def _get_help_string(self, action: argparse.Action) -> str:
        words = super()._get_help_string(action)
        return f"{words} [{translated(str(action.type))}]".lstrip() if isinstance(action.type, Number) else words


def add_common_flags(parser):
    """Adds the flags that every train.py has, in two groups: the run, and the machine."""
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="run folder (default: runs/ARCH-DATA, numbered if taken)")
    run.add_argument(
        "--resume", metavar="DIR", help=f"go on with the run in DIR; of the flags, only {flags(MAY_CHANGE)} may be new"
    )
    run.add_argument("--quick", action="store_true", help="smoke run of seconds: tiny data, one epoch")
    seeds = Number(int, 0, 2**32 - 1)
    run.add_argument("--seed", type=seeds, default=0, help="seed of everything random (default: %(default)s)")
    machine = parser.add_argument_group("machine")
    add_device_flag(machine)
    help_text = "bf16: autocast; auto: the faster one on this machine (default: %(default)s)"
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help=help_text)
    machine.add_argument("--compile", action="store_true", help="torch.compile the model: pays in long runs on a GPU")
    some = Number(int, 0, 256)
    machine.add_argument("--workers", type=some, default=0, help="processes that read files (default: %(default)s)")


def add_device_flag(parser):
    choices = ("auto", "cpu", "cuda", "mps")
    parser.add_argument("--device", choices=choices, default="auto", help="default: %(default)s, an accelerator if any")


class Mirror(argparse.Action):
    """--mirror cn sets DATA_MIRROR, which may also be set outside; download() then begins with the last address."""

    def __call__(self, parser, namespace, value, option_string=None):
        setattr(namespace, self.dest, value)
        os.environ["DATA_MIRROR"] = value


def add_mirror_flag(parser):
    parser.add_argument("--mirror", choices=("cn",), action=Mirror, help="cn: download from the mirrors in China first")


def flags(names: Iterable[str]) -> str:
    """("batch_size", "lr") -> "--batch-size, --lr" """
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def parse_args(parser, argv=None):
    """parser.parse_args(). With --resume: the saved arguments of that run, beside which only MAY_CHANGE may be given."""
    args = parser.parse_args(argv)
    if args.resume is None:
        return args
    saved = from_first(lambda: read_arguments(args.resume))
    names = [*(action.dest for action in parser._actions), *parser._defaults]
    nothing = argparse.Namespace(**dict.fromkeys(names, ...))
    given = [name for name, value in vars(parser.parse_args(argv, nothing)).items() if value is not ...]
    if refused := [name for name in given if name not in ("resume", "mirror", *MAY_CHANGE)]:
        fail(f"--resume {args.resume}: goes on with the run's own data and recipe; leave out {flags(refused)}")
    parser.set_defaults(**{name: value for name, value in saved.items() if hasattr(args, name)})
    args = parser.parse_args(argv)
    args.run = args.resume
    return args


def read_arguments(run: str | Path) -> dict:
    """-> the arguments that a run was started with: its args.json."""
    path = Path(run) / "args.json"
    if not str(run).strip() or not path.is_file():
        fail(f"{run or '(empty name)'}: no args.json there, so this is not a run folder")
    return read_json(path)


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{path}: cannot be read ({error})")
    return content if isinstance(content, dict) and content else fail(f"{path}: empty, or not a JSON object")


# ---- device, processes, seed ------------------------------------------------------------------------------------------


def rank():
    """This process's number under torchrun; 0 without."""
    return int(os.environ.get("RANK", 0))


def world():
    """The number of processes under torchrun; 1 without."""
    return int(os.environ.get("WORLD_SIZE", 1))


def pick_device(name="auto", same_sizes=False):
    """-> torch.device. `auto` is CUDA, else MPS, else CPU. Under torchrun, each process gets its own GPU. `same_sizes`: see
    choose_kernels()."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        fail(f"--device {name}: this PyTorch ({torch.__version__}) sees no such device here; use --device cpu or auto")
    if name == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        choose_kernels(same_sizes)
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def choose_kernels(same_sizes):
    """How a GPU computes, chosen here and nowhere else. A CPU and MPS do not look at it.

    Products of float32 matrices take TF32, as PyTorch's convolutions do by default: 10 bits of the fraction instead of 23, and
    several times the speed. Where all batches have the `same_sizes`, cuDNN tries its ways to convolve in the first step and
    takes the fastest; otherwise it would try again for each new size. Which one wins may differ from run to run, and
    some gradients are summed in any order: on a GPU, two runs are the same within rounding, not bit for bit.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = same_sizes


def pick_precision(name, device):
    """-> fp32 or bf16. `auto` is the faster one; bf16 where it is the slower one gets a warning, as many CPUs only emulate it.
    On a CPU and on MPS a matrix product is measured (0.3 s); CUDA says itself what its hardware has."""
    if name == "fp32":
        return name
    if device.type == "cuda":
        return "bf16" if name == "bf16" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    ratio = from_first(lambda: product_time(torch.float32, device) / product_time(torch.bfloat16, device))
    picked = name if name != "auto" else "bf16" if ratio > 1.1 else "fp32"
    speed = f"matrix products in bf16 run at {ratio:.2f} times the speed of fp32 on this machine"
    if picked == "bf16" and ratio < 1:
        warn(f"--precision bf16: {speed}; --precision auto would take fp32")
    else:
        say(f"precision {picked}: {speed}")
    return picked


def product_time(dtype, device, seconds=0.15):
    """-> the seconds that one product of two matrices of 256 x 256 takes: the best of as many as `seconds` allow."""
    matrix, times = torch.rand(256, 256, device=device).to(dtype), []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # which waits for the device
        times.append(time.perf_counter() - start)
    return min(times)


def keep_freed_memory():
    """Lets the C library keep freed memory (Linux): by default it hands large blocks back to the system after each step and
    takes a page fault for every 4 KiB of the next, which makes steps on a CPU up to a fifth slower."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks from the heap too
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap
            libc.mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, as autograd frees in another than allocates


@contextmanager
def processes(device=None):
    """Joins the processes that torchrun started; does nothing without torchrun. NCCL for CUDA, gloo for the CPU; both where
    the device is not chosen yet.

    When one of them fails, on whatever machine, it says so in the store that all share, and the others, who would wait
    for it in their next exchange, end within seconds too. After a restart (torchrun --max-restarts) all names are new.
    """
    if world() == 1:
        yield
        return
    kind = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    backend = kind if device is None else "nccl" if device.type == "cuda" else "gloo"
    base, number, count = next(rendezvous("env://"))
    store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", base)
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(store.clone(), done), daemon=True)
    watcher.start()  # before the processes join: one may already have failed
    try:
        dist.init_process_group(backend, store=store, rank=number, world_size=count)
        yield
        dist.barrier()  # nobody leaves while another is still at work
    except BaseException as error:
        end_all(store, error)
    done.set()
    dist.destroy_process_group()


def end_all(store, error: BaseException) -> None:
    """Ends this process, whose error the others read in the store; of an error that another process caused, says nothing."""
    if not isinstance(error, (SystemExit, KeyboardInterrupt, MemoryError, torch.OutOfMemoryError)):
        time.sleep(2)  # a broken exchange: if another process failed first, the watcher ends this one meanwhile
        traceback.print_exception(error)
    kind = "" if isinstance(error, SystemExit) else f"{type(error).__name__}: "
    line = f"process {rank()}: {kind}{str(error).splitlines()[0] if str(error) else ''}"
    failed = not isinstance(error, SystemExit) or error.code not in (None, 0)
    if failed:
        print(line, file=sys.stderr, flush=True)
        store.set("failed", f"{machine()} {line}")
        time.sleep(1)  # the store ends with the first machine's processes: all must have read it by then
    sys.stdout.flush()
    os._exit(int(failed))


def watch(store, done: threading.Event) -> None:
    """Ends this process when another has failed. What that one said is printed once on each other machine."""
    line = ""
    while not done.wait(0.3):
        try:
            if not store.check(["failed"]):
                continue
            there, _, line = store.get("failed").decode("utf-8", "replace").partition(" ")
        except (RuntimeError, OSError):  # the store is gone, and the first machine with it; or all are done
            done.wait(2)
            there, line = "", "the first machine's processes have ended"
        if not done.is_set():
            if there != machine() and os.environ.get("LOCAL_RANK", "0") == "0":
                print(line, file=sys.stderr, flush=True)
            os._exit(1)


def machine() -> str:
    """This machine's number under torchrun; elsewhere (Kubernetes) each process counts as one."""
    return os.environ.get("GROUP_RANK", str(rank()))


def from_first(make: Callable):
    """-> what make() gives in the first process, in all processes: only the first needs to have the file."""
    if not dist.is_initialized():
        return make()
    result = [make() if rank() == 0 else None]
    dist.broadcast_object_list(result)
    return result[0]


def agree(**facts) -> None:
    """Ends the program if the processes were not given the same: names which fact differs, and in which process."""
    if world() == 1:
        return
    facts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in facts.items()}
    everyone: list = [None] * world()
    dist.all_gather_object(everyone, facts)
    for number, theirs in enumerate(everyone):
        for name in facts:
            if theirs.get(name) != everyone[0].get(name):
                values = f"{theirs.get(name)}, not {everyone[0].get(name)}"
                fail(f"process {number} has another {name} than process 0: {values[:300]}")


def seed_everything(seed, epoch=0):
    """Seeds Python, NumPy and torch from (seed, epoch, rank).

    Called at the start of each epoch, it makes all randomness a function of these three numbers: a resumed run
    draws what the uninterrupted one draws, and there is no random state to save.

    Without an epoch this is the stream of epoch 0: the first weights and the first epoch's noise begin with the same random
    numbers. Streams of their own were measured too and made no difference (chapter 4's denoising, shallow, 2,000 pictures,
    three seeds: 17.31 ± 0.30 dB, and 17.30 ± 0.30 as it is), so that published runs can still be repeated.
    """
    mixed = int(np.random.SeedSequence((seed, epoch, rank())).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def one_cycle(optimizer, steps: int, done: int = 0, **options):
    """torch's OneCycleLR over `steps` steps, of which `done` are behind it: the schedule depends on the step alone, so that a
    resumed run needs no saved state of it, and a lengthened one gets a new schedule. Stands any number of steps."""
    highest = [group.get("max_lr", group["lr"]) for group in optimizer.param_groups]  # of a restored one: what it noted
    options = {"max_lr": highest, "pct_start": 0.2} | options
    total = max(2, steps)
    if abs(options["pct_start"] * total - 1) < 1e-9:  # a rise of exactly one step would be divided by 0
        options["pct_start"] *= 1.01
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, total_steps=total, last_epoch=done - 1, **options)


# ---- files ------------------------------------------------------------------------------------------------------------

LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "desktop.ini", "__pycache__", "$RECYCLE.BIN", "System Volume Information"}
LEFT_BEHIND |= {"@eaDir"}  # a Synology disk's thumbnails


def is_left_behind(path: Path, folder: Path) -> bool:
    """Whether a path below `folder` is one of the files and folders that systems leave: .DS_Store, __MACOSX and their like."""
    return any(part.startswith(".") or part in LEFT_BEHIND for part in path.relative_to(folder).parts)


def write_atomic(path, data):
    """Writes bytes or text to `path` so that a kill or a full disk leaves the old file or the new one, never half of one."""
    path = Path(os.path.realpath(path))  # a link stays a link
    data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp"[-255:])
    special = is_special(path)
    try:
        with open(path if special else beside, "wb") as file:
            file.write(data)
            file.flush()
            if not special:
                os.fsync(file.fileno())
        if not special:
            os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True) if beside.parent.is_dir() else None
        fail(f"cannot write {path}: {error.strerror}; what was there before is untouched")


def read_text(path) -> str:
    """A text file in UTF-8 (with a byte-order mark or without), UTF-16 with a mark, or GB18030 where that gives plausible
    Chinese. Line ends become \\n."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror})")
    if data.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        fail(f"{path}: a spreadsheet or an archive, no text file; save it as CSV UTF-8")
    encodings = ("utf-16",) if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "gb18030")
    where = 0
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            where = where or error.start
            continue
        if "\0" not in text and (encoding != "gb18030" or is_chinese(text)):
            return text.replace("\r\n", "\n").replace("\r", "\n")
    line = data.count(b"\n", 0, where) + 1
    fail(f"{path}, line {line}: neither UTF-8 nor GB18030 text; save it as UTF-8 (Excel: CSV UTF-8)")


def is_chinese(text: str) -> bool:
    """Nearly all bytes are some GB18030 text. Of real Chinese, these eight are one character in fifteen (traditional too), or
    nearly all are among the 3,755 that GB2312 has first. Korean in CP949 looks so too: its commonest syllables tell."""
    chinese = re.findall("[\u3400-\u9fff\ue000-\uf8ff]", text[:200_000])
    frequent = sum(c in "的一是不我人在有" for c in chinese)
    first = sum(b"\xb0" <= c.encode("gb18030")[:1] <= b"\xd7" and c.encode("gb18030")[1] > 0xA0 for c in chinese)
    korean = sum(c in "捞促绰阑俊狼窍" for c in chinese)  # as GB18030 reads the bytes of 이 다 는 을 에 의 하
    plausible = frequent > len(chinese) / 200 or first > 0.9 * len(chinese)
    return bool(chinese) and plausible and korean < max(2, len(chinese) / 50)


def is_special(path) -> bool:
    """/dev/null, /dev/stdout and their like: they are written to, but cannot be replaced by a file."""
    return Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()


def output_folder(path) -> Path:
    """-> the folder, made if it is not there."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot make the folder {path}: {error.strerror}")
    return Path(path)


def free_name(path) -> Path:
    """-> `path`, or with -2, -3, ... before its suffix if there is something of that name: nothing is overwritten."""
    path = Path(path)
    names = (path if n == 1 else path.with_name(f"{path.stem}-{n}{path.suffix}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name) or is_special(name))


def hash_of(path: Path, kind: str = "sha256") -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(urls: Iterable[str], path: Path, expected: str = "", check: Callable | None = None, timeout: float = 20.0):
    """Gets `path` from the first address that has it whole. `urls`: the official one, then mirrors, those in China last.

    `expected`: "md5:..." or "sha256:..."; `check` raises ValueError.

    What comes is kept as NAME.part until it is whole and right: a broken download goes on from there the next time. A whole
    but wrong one is kept as NAME.damaged.
    """
    if world() > 1:  # not one process downloading while the others go without
        fail(f"{path} is not there; get it with `python datasets.py` before torchrun")
    kind, _, digest = expected.partition(":")
    part, why = path.with_name(f"{path.name}.part"), "no address"
    urls = list(urls)[:: -1 if os.getenv("DATA_MIRROR") == "cn" else 1]
    output_folder(path.parent)
    for url in urls:
        try:
            say(f"Downloading {url} ...", file=sys.stderr)
            fetch(url, part, timeout)
            if digest and hash_of(part, kind) != digest:
                raise ValueError(f"its {kind.upper()} is not {digest}")
            if check:
                check(part)
            os.replace(part, path)
            return
        except (OSError, http.client.HTTPException) as error:
            why = f"{url}: {getattr(error, 'reason', None) or error}"
        except ValueError as error:  # also of an address that is none
            why = f"{url}: not the file expected ({error})"
            if part.exists():
                os.replace(part, free_name(path.with_name(f"{path.name}.damaged")))
        say(f"  no: {why}", file=sys.stderr)
    hint = f" ({kind.upper()} {digest})" if digest else ""
    fail(f"could not download {path.name} ({why}); put it into {path.parent} by hand{hint}, from {', '.join(urls)}")


def fetch(url: str, part: Path, timeout: float) -> None:
    """Writes what `url` answers to `part`, after what is there already if the server can go on from there."""
    from tqdm import tqdm

    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "Mozilla/5.0 (a learner's script)"}  # some servers refuse Python's own
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={done}-"} if done else {}))
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if done and error.code == 416:  # nothing comes after what is there: it may be whole
            return
        raise
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0  # the whole file comes
        total = done + int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(total=total or None, initial=done, desc=part.stem, unit="B", unit_scale=True, disable=None)
        with bar, open(part, "ab" if done else "wb") as file:
            while block := answer.read(1 << 16):
                file.write(block)
                bar.update(len(block))
    if answer.headers.get("Content-Length") and part.stat().st_size < total:
        raise OSError(f"it broke off after {part.stat().st_size:,} of {total:,} bytes; the next try goes on from there")


# ---- the samples of a run: which trained, and which may be tested --------------------------------------------------------
#
# A split is a dict: "data" (the name), and for "train", "val" and "test" a dict of samples {fingerprint: name}.


def fingerprint(content: bytes) -> str:
    """-> 16 hexadecimal digits that tell this content from any other."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def draw(name: str, purpose: str) -> float:
    """-> a number from 0 to 1 (less than 1) that depends on the two words alone: the same whatever other samples there are."""
    digest = hashlib.blake2b(f"{purpose}\0{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def deal(names: Iterable[str], purpose: str, share: float = 0.1) -> set[str]:
    """-> the names that are split off for `purpose`: each by a draw of its own, so that further names move none of these.
    Of two names or more at least one is split off and at least one is left."""
    order = sorted(names, key=lambda name: draw(name, purpose))
    count = sum(draw(name, purpose) < share for name in order)
    return set(order[: min(max(count, 1), len(order) - 1)])


def differences(before: dict, now: dict) -> str:
    """-> in words, how the samples of `now` differ from those of `before`; "" if they do not."""
    words = []
    for part in ("train", "val", "test"):
        old, new = before.get(part) or {}, now.get(part) or {}
        gone, came = [old[mark] for mark in old.keys() - new.keys()], [new[mark] for mark in new.keys() - old.keys()]
        changed = sorted(set(gone) & set(came))
        found = {"changed": changed, "gone": set(gone) - set(changed), "new": set(came) - set(changed)}
        for what, names in found.items():
            if names:
                words.append(f"{len(names)} {part} samples {what}, such as {min(names)}")
    return "; ".join(words)


def held_out(split: dict, samples: dict, in_test: set, names_stay: bool = True, same_data: bool = True) -> set[str]:
    """-> the fingerprints of `samples` (fingerprint -> name) that a run with this `split` may be tested on. Says what changed.

    These are the samples that it held out, and of those that came later, the ones that fall to the test part (`in_test`). One
    that trained or validated is never tested, under whatever name; with `names_stay` (files), nor under new content. Of other
    data than the run's (not `same_data`), the test part is tested, without copies of what trained.
    """
    names_stay = names_stay and same_data
    seen = {mark: name for part in ("train", "val") for mark, name in (split.get(part) or {}).items()}
    kept = split.get("test") or {}
    seen_names, kept_names = (set(part.values()) if names_stay else set() for part in (seen, kept))
    known = seen.keys() | kept.keys() | (split.get("unused") or {}).keys()
    used = {mark for mark, name in samples.items() if mark in seen or name in seen_names}
    later = {mark for mark, name in samples.items() if mark not in known and name not in seen_names | kept_names}
    chosen = {mark for mark, name in samples.items() if mark in kept or name in kept_names or mark in in_test} - used
    names = set(samples.values()) if names_stay else set()
    notes = {
        f"that came after the training ({len(later & chosen)} of them are tested)": [samples[mark] for mark in later],
        "that changed since the training": [samples[mark] for mark in samples.keys() - known - later],
        "of the training that are gone": [n for m, n in (seen | kept).items() if m not in samples and n not in names],
        "of the test part that trained or validated, and are not tested": [samples[mark] for mark in used & in_test],
    }
    for note, found in notes.items() if same_data else list(notes.items())[-1:]:
        if found:
            say(f"samples {note}: {len(found)}, {shortened(sorted(found))}", file=sys.stderr)
    return chosen


def quoted(path) -> str:
    """A path as a shell takes it for one word: with quotes if it has blanks or brackets in it."""
    return subprocess.list2cmdline([str(path)]) if sys.platform == "win32" else shlex.quote(str(path))


def shortened(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + ("" if len(names) <= most else f", ... ({len(names) - most} more)")


# ---- the run folder ---------------------------------------------------------------------------------------------------


def new_run(run, default):
    """-> Path of a new run folder: `run` or runs/`default`, with -2, -3, ... if taken. The same in all processes.

    Of two programs that want the same name at the same time, one gets it: who creates args.json, which the caller fills.
    """
    return from_first(lambda: claim_folder(Path(run) if run is not None else Path("runs") / default, run))


def claim_folder(wanted: Path, flag) -> Path:
    if flag is not None and not str(flag).strip():
        fail("--run: the name of the folder is empty")
    for n in itertools.count(1):
        path = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not any(path.iterdir()):
                (path / "args.json").open("x").close()
                return path
        except (FileExistsError, NotADirectoryError) as error:
            if not os.path.lexists(path):  # not this name is taken, but a folder above it is a file
                fail(f"cannot make the run folder {path}: {error.strerror}")
        except OSError as error:
            fail(f"cannot make the run folder {path}: {error.strerror}")
        if wanted.name in ("", ".."):
            fail(f"--run {flag}: this folder is not empty; give the name of a new one")


def open_run(args, default: str, split: dict) -> Path:
    """-> the run folder: a new one, with args.json and split.json in it, or that of --resume, whose data must be these.

    All processes must have the same recipe and the same samples. Of a resumed run nothing is written before save_arguments().
    """
    here = ("run", "resume", "data", "data_root", "cache", "mirror", *MAY_CHANGE)  # may differ from machine to machine
    agree(recipe={name: value for name, value in vars(args).items() if name not in here})
    agree(data=fingerprint(json.dumps(split, sort_keys=True).encode()))
    if args.resume is not None:
        run = Path(args.resume)
        before = from_first(lambda: read_json(run / "split.json") if (run / "split.json").exists() else split)
        if words := differences(before, split):
            fail(f"--resume {run}: the data are not those of the run: {words}")
        return run
    run = new_run(args.run, default)
    if rank() == 0:
        save_arguments(run, args)
        write_atomic(run / "split.json", json.dumps(split, separators=(",", ":")))
    return run


def save_arguments(run: Path, args) -> None:
    """Writes args.json. A resumed run calls it when its first new epoch is done."""
    write_atomic(run / "args.json", json.dumps(vars(args) | {"resume": None}, indent=1))


ON_THIS_MACHINE = (  # flags that say where and on what to train, not what
    "run", "resume", "data_root", "cache", "mirror", "device", "workers", "num_gpus", "shard", "launch", "bench",
    "threads", "out",
)  # fmt: skip


def command_of(saved: dict, usual: argparse.Namespace, program: str = "python train.py") -> str:
    """-> the command that trains again what the run with the arguments `saved` has trained, for weights that are shared.

    It names every flag that differs from `usual`, the arguments of the bare `program`, and always the network, the data, the
    seed and the precision. It does not say where things lay on this machine.
    """
    usual = vars(usual) | dict.fromkeys(("arch", "data", "seed", "precision"))
    words = [program]
    for name in dict.fromkeys(("arch", "data", *saved)):
        value = saved.get(name)
        if name in usual and name not in ON_THIS_MACHINE and value not in (usual[name], None):
            given = value if isinstance(value, list) else [] if value is True else [value]
            given = [Path(one).name if Path(str(one)).is_absolute() else one for one in given]
            words += [flags([name]), *map(quoted, given)]
    return " ".join(words)


def last_checkpoint(run: Path, args) -> dict | None:
    """-> what the run saved last, or None if it is new or saved nothing yet. Only the first process needs the file."""
    if args.resume is None:
        return None
    return from_first(lambda: load_checkpoint(run / "last.pt") if (run / "last.pt").exists() else None)


def is_finished(run: Path, args, epochs_done: int, stopped: bool = False) -> bool:
    """Whether a resumed run has nothing left to do, which is said; says too if its schedule changes."""
    if args.resume is None or not epochs_done:
        return False
    planned = from_first(lambda: read_arguments(run).get("epochs"))
    if epochs_done > args.epochs:
        fail(f"--epochs {args.epochs}: {run} has done {epochs_done} already")
    if epochs_done == args.epochs or (stopped and args.epochs == planned):
        say(f"{run} is finished: {epochs_done} epochs. To train longer: --resume {quoted(run)} --epochs MORE")
        return True
    if args.epochs != planned:
        say(
            f"--epochs {planned} -> {args.epochs}: the schedule is laid out anew from epoch {epochs_done + 1} to the new end"
        )
    return False


def newest_run(accept: Callable[[dict], bool] = lambda arguments: True, file: str = "best.pt") -> Path | None:
    """-> the folder below runs/ whose `file` is newest, of those whose arguments are accepted; --quick runs never are."""
    found = sorted(Path("runs").glob(f"**/{file}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        try:
            arguments = json.loads((path.parent / "args.json").read_text("utf-8"))
            if not arguments.get("quick") and accept(arguments):
                return path.parent
        except (OSError, ValueError, AttributeError):  # not a run folder
            continue
    return None


def unwrap(model):
    """The module inside DistributedDataParallel and torch.compile, so that saved keys are the model's own."""
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return unwrap(model.module)
    return unwrap(model._orig_mod) if hasattr(model, "_orig_mod") else model


def save_checkpoint(path, state):
    """Saves a dict of tensors, numbers, strings, lists and dicts, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path):
    """-> the dict that save_checkpoint saved, on the CPU. Never runs code from the file (weights_only)."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        fail(f"{path}: no such checkpoint")
    except Exception as error:  # torch raises many kinds for a damaged file
        fail(f"{path}: not a checkpoint that can be read ({type(error).__name__})")


def save_weights(path, model, **metadata):
    """Saves a model to share: safetensors, with `metadata` (any JSON value) inside the file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in unwrap(model).state_dict().items()}
    text = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    write_atomic(path, safetensors.torch.save(tensors, text))


def load_weights(path):
    """-> (state dict, metadata) of a file from save_weights, or of a run's best.pt or last.pt."""
    if Path(path).suffix in (".pt", ".pth"):
        saved = load_checkpoint(path)
        if isinstance(saved, dict) and isinstance(saved.get("model"), dict) and isinstance(saved.get("meta"), dict):
            return saved["model"], saved["meta"]
        fail(f"{path}: holds no weights of a run of this chapter")
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            return state, {name: plain_or_json(value) for name, value in (file.metadata() or {}).items()}
    except FileNotFoundError:
        fail(f"{path}: no such weights")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        fail(f"{path}: not a safetensors file that can be read ({error})")


def load_state(part, state: dict, path, arch: str) -> None:
    """Gives a network or an optimizer its state from the file `path`, a run of `arch`; ends the program if it does not fit."""
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError):  # a network's error; an optimizer's
        fail(f"{path}: says {arch}, but the weights in it are of another network, or of an older version of this code")


def plain_or_json(text: str):
    """Other libraries' files hold plain words in their metadata, such as `format: pt`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def say_weights(path, meta: dict) -> None:
    """Says on stderr which weights answer."""
    say(f"weights: {path} ({meta.get('arch')}, trained on {meta.get('data')})", file=sys.stderr)


def write_metrics(history, path):
    """Writes `history` (a dict an epoch) as CSV. No times in it: a resumed run writes the same bytes."""
    rows = [",".join(history[0])] + [",".join(f"{value:.6g}" for value in row.values()) for row in history]
    write_atomic(path, "\n".join(rows) + "\n")


class Events:
    """TensorBoard's writer, in the first process; opened at the first epoch's end, so that a resumed run that fails before
    leaves its folder as it was. A kill loses what was not written yet: a resumed run writes its whole history again."""

    def __init__(self, run: Path, history: list[dict]):
        self.run, self.history, self.writer = run, list(history), None

    def open(self):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(self.run), purge_step=1 if self.history else None)
        for row in self.history:
            self.add(row)
        return self.writer

    def add(self, row: dict, **more: float) -> None:
        """The numbers of an epoch; the first of them is its number."""
        if rank() == 0:
            writer = self.writer or self.open()
            number, *_ = row.values()
            for name, value in [*list(row.items())[1:], *more.items()]:
                writer.add_scalar(name, value, number)

    def close(self) -> None:
        if self.writer:
            self.writer.close()


# ---- drawing and printing ---------------------------------------------------------------------------------------------

LIKELY = "cjk|notosanssc|sourcehan|wqy|simhei|simsun|msyh|pingfang|heiti|hiragino|droidsansfallback|uming|ukai"


@cache
def font_files() -> list[str]:
    """The font files of this machine, those first that likely have Chinese: there may be a thousand. Looked for anew: the
    list that matplotlib keeps may be older than a font that was just installed."""
    from matplotlib import font_manager

    fonts = sorted(font_manager.findSystemFonts(), key=lambda path: not re.search(LIKELY, Path(path).name, re.I))
    return [font_manager.findfont("DejaVu Sans"), *fonts]


def find_font(text: str, named: str | None = None) -> str | None:
    """-> a font file with every character of `text`: the file `named`, or an installed one. None if there is none."""
    from matplotlib.ft2font import FT2Font

    characters = {c for c in text if not c.isspace()}
    for path in [named] if named else font_files():
        try:
            font = FT2Font(path)
            if all(font.get_char_index(ord(c)) for c in characters):
                return path
        except (OSError, RuntimeError, ValueError):  # a damaged file, or a kind that matplotlib cannot read
            continue
    return None


def new_figure(width: float, height: float, text: str = ""):
    """-> a matplotlib Figure (inches) that draws `text`, names of classes and files, as it is: `$` is no formula in it, and
    where DejaVu lacks characters, Chinese ones say, an installed font is added that has them."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    families = ["DejaVu Sans"]
    if not text.isascii():
        path = find_font(text)
        if path is None:
            warn("No installed font has all characters of the names in this picture: some are drawn as boxes.\n"
                 "A free one with Chinese: Noto Sans CJK (Debian and Ubuntu: apt install fonts-noto-cjk).")  # fmt: skip
        else:
            font_manager.fontManager.addfont(path)
            families.append(font_manager.FontProperties(fname=path).get_name())
    matplotlib.rcParams.update(
        {"text.parse_math": False, "font.family": families, "axes.formatter.use_mathtext": False}
    )
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # new_figure() has said so in words
        figure.savefig(buffer, format="png", dpi=100)
    write_atomic(path, buffer.getvalue())


def draw_curves(history, path):
    """Draws the columns of `history` (a dict an epoch) over the epochs; train_x and val_x share a panel."""
    panels = {}
    for name in history[0]:
        if name != "epoch":
            panels.setdefault(name.removeprefix("train_").removeprefix("val_"), []).append(name)
    figure = new_figure(4.2 * len(panels), 3.2)
    for axis, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            axis.plot([row["epoch"] for row in history], [row[name] for row in history], label=name, marker=".")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def cut(text: str, most: int) -> str:
    """A long name in a picture or table: its beginning. Bytes that are no text are shown as such."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def width_of(text: str) -> int:
    """Columns in a terminal: a Chinese character takes two."""
    return sum(2 if ord(c) > 0x2E7F else 1 for c in text)


def print_table(rows: list[list[str]], remarks: list[str] | None = None) -> None:
    """Prints rows of cells, the first row the header: the first column to the left, the others to the right, never touching;
    `remarks`: a text to put at the end of each row."""
    widths = [max(width_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row, remark in zip(rows, remarks or [""] * len(rows), strict=True):
        blanks = [" " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [row[0] + blanks[0], *(blank + cell for blank, cell in zip(blanks[1:], row[1:], strict=True)), remark]
        print("  ".join(cells).rstrip())
