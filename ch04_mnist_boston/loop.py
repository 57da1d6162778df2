"""What the loops of the three tasks share: batches, the average of the weights, and the run folder's files.

    python train.py mnist --quick                 # a run, in seconds
    python train.py --resume runs/convnet-sample  # the run goes on; here it is complete and says so

The loops themselves are in boston.py, mnist.py and denoise.py.
"""

import copy
import math
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import utils
from datasets import Split
from models import count_parameters
from utils import fail, rank, say, world

# ---- the step ---------------------------------------------------------------------------------------------------------


def batches(split: Split, batch_size: int, seed: int | None = None, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (pixels (n, 1, S, S) uint8, labels (n,)) of a split that lies on the device as one tensor.

    With `seed`, for training: the order is drawn anew from (seed, epoch), the same in all processes, each takes its share,
    and an incomplete last batch is left out.
    """
    order = torch.arange(len(split))
    if seed is not None:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        batch_size = min(batch_size, len(split) // world() * world())
        order = order[: len(split) // batch_size * batch_size]
    for batch in order.to(split.labels.device).split(batch_size):
        mine = batch[rank() :: world()]
        yield split.images[mine], split.labels[mine]


def steps_per_epoch(split: Split, batch_size: int) -> int:
    return len(split) // min(batch_size, len(split) // world() * world())


def autocast(args: Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()


def make_optimizer(model: nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """-> AdamW (Loshchilov and Hutter 2017). Only matrices and filters decay, not biases and norms' scales."""
    parameters = list(model.parameters())
    named = [(name.endswith("weight") and p.ndim > 1, p) for name, p in model.named_parameters()]
    groups = [
        {"params": [p for is_matrix, p in named if is_matrix], "weight_decay": args.weight_decay},
        {"params": [p for is_matrix, p in named if not is_matrix], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in ("cpu", "cuda")  # one kernel for all parameters
    return torch.optim.AdamW(groups, args.lr, fused=fused)


def make_schedule(optimizer: torch.optim.Optimizer, steps: int, done: int = 0):
    """-> a one-cycle schedule over `steps` steps, of which `done` are over: up to --lr in a fifth of the run, down to nothing
    by a cosine (Smith and Topin 2017)."""
    return utils.one_cycle(optimizer, steps, done, cycle_momentum=False)


class Average:
    """A copy of the network whose weights are a running average of those of all steps (Polyak and Juditsky 1992): steadier
    than the last step's. The decay starts low, so that the first, bad weights are forgotten. Decay 0: just the last."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval(), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        keep = min(self.decay, step / (step + 9))
        for ours, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - keep)
            else:
                ours.copy_(theirs)


def check_loss(total: Tensor, args: Namespace, where: str) -> None:
    """Ends the program if the loss stopped being a number."""
    if not math.isfinite(total.item()):
        fail(
            f"the loss is not finite in {where}: try an --lr below {args.lr:g}. "
            f"What the run folder has from before is untouched"
        )


def wrap(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    if world() > 1:
        model = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    return torch.compile(model) if args.compile else model


def start_from(model: nn.Module, weights: str | None, arch: str) -> nn.Module:
    """The network with the weights of a file; its last layer stays as it is if that one has other classes."""
    if not weights:
        return model
    state, meta = utils.load_weights(weights)
    own = model.state_dict()
    last = list(own)[-1].rpartition(".")[0]
    fits = {name: name in state and state[name].shape == own[name].shape for name in own}
    if meta.get("arch") != arch and not all(fit or name.startswith(last) for name, fit in fits.items()):
        fail(f"{weights} holds a {meta.get('arch', 'network of another kind')}, not a {arch}")
    state = {name: state[name] for name in own if name in state}  # tensors that it does not have are left out
    new = {name: own[name] for name, fit in fits.items() if not fit and name.startswith(last)}
    utils.load_state(model, state | new, weights, arch)
    return model


@torch.no_grad()
def try_out(model: nn.Module, images: Tensor, args: Namespace) -> None:
    """Ends the program with one line if the network cannot take pictures of this size, or as few of them."""
    try:
        copy.deepcopy(model).train()(images)
    except (RuntimeError, ValueError) as error:
        size = f"{images.shape[-1]} pixels in batches of {args.batch_size}"
        fail(f"--arch {args.arch} cannot take pictures of {size} ({str(error).splitlines()[0][:150]})")


def share_buffers(model: nn.Module) -> None:
    """DistributedDataParallel gives all processes the first one's batch-norm statistics before each forward pass, and each
    then adds its own share of the batch. So after a step they differ, and so does their average over the steps. The first
    one's are saved: here all take those."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def means(sums: Tensor, *names: str) -> dict[str, float]:
    """Sums over samples, the last being their number -> their means, over all processes."""
    if world() > 1:
        dist.all_reduce(sums)
    *totals, count = sums.tolist()
    return {name: total / count for name, total in zip(names, totals, strict=True)}


# ---- the run folder ---------------------------------------------------------------------------------------------------


def restore(saved: dict | None, run: Path, args: Namespace, parts: dict) -> dict:
    """-> what last.pt says of the run so far, with the states of `parts` put back; or, if it saved nothing yet, the start."""
    progress = {"epoch": 0, "history": [], "seconds": 0.0, "waited": 0}
    if saved is None:
        return progress
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    for name, part in parts.items():
        utils.load_state(part, saved[name], run / "last.pt", args.arch)
    return {name: saved[name] for name in progress}


def save(run: Path, args: Namespace, progress: dict, meta: dict, parts: dict, best: nn.Module | None) -> None:
    """Writes the run's files; `best` is the network if it is the best so far. last.pt comes last: a kill before it means that
    this epoch is done again, to the same result."""
    if rank() > 0:
        return
    if best is not None:
        weights = {name: tensor.contiguous() for name, tensor in best.state_dict().items()}
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    states = {name: part.state_dict() for name, part in parts.items()}
    utils.save_checkpoint(run / "last.pt", {"meta": meta} | states | progress)


def report(row: dict, count: str, speed: str, events: utils.Events) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    (unit, number), *rest = row.items()
    digits = {"lr": 5, "epochs": 0}
    numbers = "  ".join(f"{name} {value:.{digits.get(name, 4)}f}" for name, value in rest)
    say(f"{unit} {number:>3}/{count}  {numbers}  {speed}")
    events.add(row)


def quality(row: dict, score: str) -> tuple[float, float]:
    """Of two epochs the better one has the higher score, or the same (on few pictures often) and the lower loss."""
    return row[score], -row["val_loss"]


def note(progress: dict, row: dict, score: str, seconds: float) -> bool:
    """Adds a finished epoch to the run's progress -> whether it is the best so far by `score`."""
    is_best = all(quality(row, score) > quality(earlier, score) for earlier in progress["history"])
    progress["history"].append(row)
    progress |= {"epoch": row["epoch"], "seconds": progress["seconds"] + seconds}
    progress["waited"] = 0 if is_best else progress["waited"] + 1
    return is_best


def introduce(model: nn.Module, args: Namespace, device: torch.device, run: Path, data: str, *more: str) -> None:
    """Says what trains on what `data`, then `more` lines, then where."""
    for line in (f"{args.arch} ({count_parameters(model):,} parameters) on {data}", *more):
        say(line)
    say(f"{device}, {args.precision}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}; run {run}")


def has_waited(progress: dict, args: Namespace) -> bool:
    """Early stopping: whether --patience epochs went by without a better one."""
    return bool(args.patience) and progress["waited"] >= args.patience


def finish(run: Path, args: Namespace, progress: dict, score: str, events: utils.Events) -> None:
    """The run's curves, and its result in three lines."""
    events.close()
    if rank() > 0:
        return
    utils.draw_curves(progress["history"], run / "curves.png")
    row = max(progress["history"], key=lambda row: quality(row, score))
    seconds = progress["seconds"]
    say(f"{args.arch} on {args.data}: {score} {row[score]:.4f} in epoch {row['epoch']}; {seconds:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py {args.task} --run {utils.quoted(run)}")
