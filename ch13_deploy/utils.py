"""Device, seed, run folder, checkpoint, flags: what every training script needs and no lesson is about.

This file is the same, byte for byte, in every chapter that has it (`nox -s lint` checks that).
"""

import ctypes
import io
import json
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.distributed as dist


def fail(message):
    """Ends the program with one line on stderr and exit status 1."""
    raise SystemExit(f"error: {message}")


def warn(message):
    """A warning nobody can miss, printed once (by the first process)."""
    if rank() == 0:
        print(
            "\n".join(("", "!" * 88, *("!  " + line for line in message.splitlines()), "!" * 88, "")), file=sys.stderr
        )


def say(*words):
    """print(), from the first process only."""
    if rank() == 0:
        print(*words, flush=True)


# ---- flags: the same words for the same things in every chapter -------------------------------------------------------


def add_common_flags(parser):
    """Adds the flags that every train.py has, in two groups: the run, and the machine."""
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="run folder (default: runs/ARCH-DATA, numbered if taken)")
    run.add_argument("--resume", metavar="DIR", help="go on with the run in DIR, from its saved arguments")
    run.add_argument("--quick", action="store_true", help="smoke run of seconds: tiny data, one epoch")
    run.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    machine = parser.add_argument_group("machine")
    devices, precisions = ("auto", "cpu", "cuda", "mps"), ("fp32", "bf16")
    machine.add_argument(
        "--device", choices=devices, default="auto", help="default: %(default)s, an accelerator if any"
    )
    machine.add_argument(
        "--precision", choices=precisions, default="fp32", help="bf16: autocast (default: %(default)s)"
    )
    machine.add_argument("--compile", action="store_true", help="torch.compile the model: pays in long runs on a GPU")
    machine.add_argument("--workers", type=int, default=0, help="processes that read files (default: %(default)s)")


def parse_args(parser, argv=None):
    """parser.parse_args(), with --resume: the saved arguments of that run, under any flag given now."""
    args = parser.parse_args(argv)
    if args.resume:
        path = Path(args.resume) / "args.json"
        if not path.is_file():
            fail(f"--resume {args.resume}: no args.json there, so this is not a run folder")
        saved = json.loads(path.read_text("utf-8"))
        parser.set_defaults(**{name: value for name, value in saved.items() if hasattr(args, name)})
        args = parser.parse_args(argv)
        args.run = args.resume
    return args


# ---- device, processes, seed ------------------------------------------------------------------------------------------


def rank():
    """This process's number under torchrun; 0 without."""
    return int(os.environ.get("RANK", 0))


def world():
    """The number of processes under torchrun; 1 without."""
    return int(os.environ.get("WORLD_SIZE", 1))


def pick_device(name="auto"):
    """-> torch.device. `auto` is CUDA, else MPS, else CPU. Under torchrun, each process gets its own GPU."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        fail(f"--device {name}: this PyTorch ({torch.__version__}) sees no such device here; use --device cpu or auto")
    if name == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


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
def processes(device):
    """Joins the processes that torchrun started (NCCL on CUDA, else gloo); does nothing without torchrun."""
    if world() == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def seed_everything(seed, epoch=0):
    """Seeds Python, NumPy and torch from (seed, epoch, rank).

    Called at the start of each epoch, it makes all randomness a function of these three numbers: a resumed run
    draws what the uninterrupted one draws, and there is no random state to save.
    """
    mixed = int(np.random.SeedSequence((seed, epoch, rank())).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


# ---- files ------------------------------------------------------------------------------------------------------------


def write_atomic(path, data):
    """Writes bytes or text to `path` so that a kill or a full disk leaves the old file or the new one, never half of one."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        fail(f"cannot write {path}: {error.strerror}; what was there before is untouched")


def new_run(run, default):
    """-> Path of a new, empty run folder: `run` or runs/`default`, with -2, -3, ... if taken. The same in all processes."""
    path = [None]
    if rank() == 0:
        wanted = Path(run) if run else Path("runs") / default
        names = (wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}") for n in range(1, 10**6))
        path[0] = next(p for p in names if not p.exists() or (p.is_dir() and not any(p.iterdir())))
        try:
            path[0].mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"cannot make the run folder {path[0]}: {error.strerror}")
    if world() > 1:
        dist.broadcast_object_list(path)
    return path[0]


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
    """-> (state dict, metadata) of a file from save_weights."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            return state, {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
    except FileNotFoundError:
        fail(f"{path}: no such weights")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        fail(f"{path}: not a safetensors file that can be read ({error})")


def draw_curves(history, path):
    """Draws the columns of `history` (a dict an epoch) over the epochs; train_x and val_x share a panel."""
    from matplotlib.figure import Figure

    panels = {}
    for name in history[0]:
        if name != "epoch":
            panels.setdefault(name.removeprefix("train_").removeprefix("val_"), []).append(name)
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            axis.plot([row["epoch"] for row in history], [row[name] for row in history], label=name, marker=".")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())


def write_metrics(history, path):
    """Writes `history` (a dict an epoch) as CSV. No times in it: a resumed run writes the same bytes."""
    rows = [",".join(history[0])] + [",".join(f"{value:.6g}" for value in row.values()) for row in history]
    write_atomic(path, "\n".join(rows) + "\n")
