"""Behind `python train.py --bench`: how fast is training, against the course's way and against what the device could do?

    python train.py --arch textcnn --bench

Prints one line of JSON. All speeds are medians of rounds taken in turn, in one run, since machines drift:
  texts_per_s          training as train.py does it: texts of similar length together, padded to the longest of the batch
  course_texts_per_s   the same network in the course's loop: batches of 10, every text padded to the longest of all
  padding              share of padding in the batches of either
  step_gflops          what a text costs, counted as three forward passes
  tflops, peak_tflops  what training achieves, and what a large matrix product does in the same precision
  utilisation          their ratio
  read_s, cached_s     seconds to get the data ready: as found (from the cache, if an earlier run filled it), and again
"""

import copy
import json
import statistics
import time
from argparse import Namespace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import datasets
import models
from scores import loss_of
from text import PAD

ROUNDS, TEXTS = 5, 2560  # texts a round of ours; the course's rounds are as many texts as fit into its slower steps


def count_flops(model: nn.Module, ids: Tensor) -> int:
    """Of one forward pass, in matrix products and convolutions; looking embeddings up counts nothing. On the CPU, where
    PyTorch's counter sees into recurrent layers, and in training mode, where it sees into attention."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).cpu().train()(ids.cpu())
    return counter.get_total_flops()


def seconds_of(work, device: torch.device) -> float:
    """The wall-clock seconds of one call, the device's own work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


class CourseLoader(datasets.BucketLoader):
    """The course's: texts in random order, ten a batch, all as long as the longest of the data set."""

    def batches(self) -> list[Tensor]:
        return list(torch.randperm(self.texts, generator=torch.Generator().manual_seed(self.seed)).split(10))

    def __iter__(self):
        longest = int(self.lengths.max())
        for batch in self.batches():
            rows = batch.to(self.device, non_blocking=True)
            yield datasets.gather(self.split, rows, longest), self.split.labels[rows], len(batch)


def first_batches(loader, texts: int) -> list[tuple]:
    batches = []
    for batch in loader:
        batches.append(batch)
        if sum(len(labels) for _, labels, _ in batches) >= texts:
            break
    return batches


def make_epoch(args: Namespace, model: nn.Module, batches: list):
    """-> a function that trains on these batches."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def epoch():
        for ids, labels, texts in batches:
            with torch.autocast(ids.device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                logits = model(ids)
            optimizer.zero_grad()
            (loss_of(logits, labels) / texts).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return epoch


def matrix_product(args: Namespace, device: torch.device):
    """-> a function that multiplies two large matrices in the precision of the run, and its FLOPs."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if args.precision == "bf16" else torch.float32)
    return lambda: a @ a, 2 * n**3


def measure(args: Namespace, corpus: datasets.Corpus, meta: dict, make_model, device: torch.device) -> dict:
    ours, course = (
        datasets.encode(corpus, "train", meta["vocabulary"], length, meta["stop_words"])
        for length in (meta["max_length"], 10**9)
    )
    batches = {
        "ours": first_batches(datasets.BucketLoader(ours, args.batch_size, device, True, args.seed), TEXTS),
        "course": first_batches(CourseLoader(course, 10, device, True, args.seed), TEXTS // 8),
    }
    works = {name: make_epoch(args, make_model(args, meta, device).train(), b) for name, b in batches.items()}
    works["product"], product_flops = matrix_product(args, device)
    times = {name: [] for name in works}
    for work in works.values():
        work()  # the first call allocates, picks kernels
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds_of(work, device))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    texts = {name: sum(texts for *_, texts in b) for name, b in batches.items()}
    padding = {name: [float((ids == PAD).float().mean()) for ids, *_ in b] for name, b in batches.items()}
    model = make_model(args, meta, device)
    flops = 3 * sum(count_flops(model, ids) for ids, *_ in batches["ours"])
    speed, course_speed = (texts[name] / seconds[name] for name in ("ours", "course"))
    peak = product_flops / seconds["product"]
    return {
        "texts_per_s": round(speed),
        "course_texts_per_s": round(course_speed),
        "speedup": round(speed / course_speed, 1),
        "padding": {name: round(statistics.mean(shares), 3) for name, shares in padding.items()},
        "step_gflops": round(flops / texts["ours"] / 1e9, 4),
        "tflops": round(flops / seconds["ours"] / 1e12, 3),
        "peak_tflops": round(peak / 1e12, 3),
        "utilisation": round(flops / seconds["ours"] / peak, 3),
    }


def run(args: Namespace, device: torch.device, load_data, make_model) -> None:
    """`load_data` and `make_model` are train.py's."""
    start = time.perf_counter()
    corpus, meta = load_data(args)
    read = time.perf_counter() - start
    start = time.perf_counter()
    load_data(args)
    ready = {"read_s": round(read, 2), "cached_s": round(time.perf_counter() - start, 2)}
    about = {"arch": args.arch, "data": corpus.name, "device": str(device), "precision": args.precision}
    about |= {"batch_size": args.batch_size, "torch": torch.__version__, "threads": torch.get_num_threads()}
    about |= {"parameters": models.count_parameters(make_model(args, meta, device))}
    print(json.dumps(about | ready | measure(args, corpus, meta, make_model, device)))
