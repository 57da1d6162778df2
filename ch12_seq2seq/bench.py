"""Behind `python train.py --bench`: how fast is training, how fast is the course's loop, how fast could it be?

    python train.py --arch general --precision auto --bench

Prints one line of JSON. All speeds are medians of rounds taken in turn, in one run, since machines drift. Tokens are
those of the target, padding not counted:
  tokens_per_s, pairs_per_s   training steps as train.py takes them: batches of like length, all time steps at once
  course_tokens_per_s         the same network in the course's loop: 64 pairs as they come, padded to the longest, one time
                              step after the other, the loss of each read as a number; float32
  padding, course_padding     share of the target positions that is padding; source_padding: of the source's
  step_gflops                 a step, forward and backward (twice the forward), by formula, of its first batch
  tflops, peak_tflops         what that step achieves, and what a large matrix product does in the same precision
  utilisation                 their ratio
"""

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import datasets
import models
import options
from losses import masked_nll, smoothed
from prepare import autocast, load_data, make_model, make_optimizer
from text import PAD

ROUNDS = 5
SHARE = {"ours": 24, "course": 48}  # a round takes a twenty-fourth of our batches; the course's are slow
COURSE_BATCH = 64


def seconds_of(work: Callable, device: torch.device) -> float:
    """The wall-clock seconds of one call, the device's own work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def medians(works: dict[str, Callable], device: torch.device) -> dict[str, float]:
    """The median seconds of each; they take turns, so that a slower minute of the machine meets all of them."""
    for work in works.values():
        work()  # the first call allocates, picks kernels, compiles
    times = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds_of(work, device))
    return {name: statistics.median(times[name]) for name in works}


def make(args: Namespace, codec: datasets.Codec, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(args.seed)
    model = make_model(args, codec, device).train()
    return model, make_optimizer(model, args)


def step(args: Namespace, model: nn.Module, optimizer, source: Tensor, target: Tensor) -> None:
    """One training step as train.py takes it."""
    with autocast(args, source.device):
        logits = model(source, target[:, :-1])
    loss = smoothed(logits, target[:, 1:], args.label_smoothing)[0] / (target[:, 1:] != PAD).sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    optimizer.step()


def course_step(args: Namespace, model: nn.Module, optimizer, source: Tensor, target: Tensor) -> list[float]:
    """One training step of the course's loop: the decoder is called for a time step, its loss is added, and so on."""
    loss, printed = 0.0, []
    state = model.encode(source)
    for t in range(target.shape[1] - 1):
        logits, state = model.decode(target[:, t : t + 1], state)
        of_step = masked_nll(logits, target[:, t + 1 : t + 2])
        printed.append(of_step.item())
        loss = loss + of_step
    optimizer.zero_grad()
    (loss / (target[:, 1:] != PAD).sum()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    optimizer.step()
    return printed


def course_batches(batches: datasets.TokenBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """64 pairs as they come, padded to the longest among them."""
    order = torch.randperm(len(batches.lengths), generator=torch.Generator().manual_seed(0))
    for rows in order.split(COURSE_BATCH):
        longest = batches.lengths[rows].amax(0).tolist()
        yield batches.source[rows, : longest[0]], batches.target[rows, : longest[1]]


def padding(sides: list[Tensor]) -> float:
    return round(sum((side == PAD).sum().item() for side in sides) / sum(side.numel() for side in sides), 3)


def flops(model: models.Translator, n: int, s: int, t: int) -> int:
    """Of one forward pass over (n, s) and (n, t) tokens, in matrix products: two for each weight and token. By formula, as
    PyTorch's counter does not see into recurrent kernels."""
    if isinstance(model, models.Transformer):
        return transformer_flops(model, n, s, t)
    gates = 4 if isinstance(model.rnn, nn.LSTM) else 3
    encoder, decoder, h = model.encoder.rnn, model.rnn, model.rnn.hidden_size
    total = 0
    for rnn, tokens, directions in ((encoder, n * s, 2), (decoder, n * t, 1)):
        for layer in range(rnn.num_layers):
            width = rnn.input_size if layer == 0 else directions * rnn.hidden_size
            total += 2 * tokens * directions * gates * rnn.hidden_size * (width + rnn.hidden_size)
    if model.attend:
        total += 2 * n * t * s * h * (1 if model.attend.score != "concat" else 0) + 2 * n * t * s * h  # scores, context
        total += 2 * n * h * h * {"dot": 0, "general": s, "concat": s + t}[model.attend.score]
        total += 2 * n * t * s * h if model.attend.score == "concat" else 0  # v . tanh(...)
    if isinstance(model, models.Bahdanau):
        total += 2 * n * h * h * s * (t - 1)  # asks the memory anew in each step
    return total + 2 * n * t * (model.readout.weight.numel() + model.target_embedding.weight.numel())


def transformer_flops(model: models.Transformer, n: int, s: int, t: int) -> int:
    w, layer = model.target_embedding.embedding_dim, model.encoder.layers[0]
    feedforward = 2 * w * layer.linear1.out_features
    encoder = len(model.encoder.layers) * s * (4 * w * w + 2 * s * w + feedforward)
    self_attention, cross = t * (4 * w * w + 2 * t * w), t * (2 * w * w + 2 * s * w) + s * 2 * w * w
    decoder = len(model.decoder.layers) * (self_attention + cross + t * feedforward)
    return 2 * n * (encoder + decoder + t * model.target_embedding.weight.numel())


def run(args: Namespace, device: torch.device) -> None:
    data, codec = load_data(args)
    bucketed = datasets.TokenBatches(data.splits["train"], codec, 0, device, args.seed)
    options.fill_in_recipe(args, data.name, bucketed)
    kinds = {"ours": [(s, t) for s, t, _ in bucketed], "course": list(course_batches(bucketed))}
    taken = {name: batches[:: SHARE[name]] for name, batches in kinds.items()}  # as long, on average, as all are
    steps = {"ours": step, "course": course_step}
    made = {name: make(args, codec, device) for name in kinds}
    trained = {name: partial(steps[name], args, *made[name]) for name in kinds}
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if args.precision == "bf16" else torch.float32)
    first = kinds["ours"][0]
    step_flops = 3 * flops(made["ours"][0], *first[0].shape, first[1].shape[1] - 1)
    works = {name: lambda name=name: [trained[name](*b) for b in taken[name]] for name in kinds}
    works |= {"first": lambda: trained["ours"](*first), "product": lambda: a @ a}
    second = medians(works, device)
    counts = {name: sum((t[:, 1:] != PAD).sum().item() for _, t in taken[name]) for name in kinds}
    speed = {name: counts[name] / second[name] for name in kinds}
    pairs = sum(len(t) for _, t in taken["ours"])
    about = {"arch": args.arch, "data": data.name, "device": str(device), "precision": args.precision}
    about |= {"batch_size": args.batch_size, "torch": torch.__version__, "threads": torch.get_num_threads()}
    peak = 2 * n**3 / second["product"] / 1e12
    figures = {
        "tokens_per_s": round(speed["ours"]),
        "pairs_per_s": round(pairs / second["ours"]),
        "course_tokens_per_s": round(speed["course"]),
        "speedup_over_course": round(speed["ours"] / speed["course"], 2),
        "padding": padding([target[:, 1:] for _, target in kinds["ours"]]),
        "source_padding": padding([source for source, _ in kinds["ours"]]),
        "course_padding": padding([target[:, 1:] for _, target in kinds["course"]]),
        "step_gflops": round(step_flops / 1e9, 2),
        "tflops": round(step_flops / second["first"] / 1e12, 3),
        "peak_tflops": round(peak, 3),
        "utilisation": round(step_flops / second["first"] / 1e12 / peak, 3),
    }
    print(json.dumps(about | figures))
