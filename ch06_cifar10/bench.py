"""Behind `python train.py --bench`: how fast is a training step, how fast could it be, what do the loaders deliver?

    python train.py --arch resnet18 --precision auto --bench

Prints one line of JSON. All speeds are medians of rounds taken in turn, in one run, since machines drift:
  pictures_per_s         training steps as train.py takes them, on a batch that lies on the device
  plain_pictures_per_s   the same network in the loop of most tutorials: float32, channels first, eager
  step_gflops            a picture's share of a step, counted as three forward passes
  tflops, peak_tflops    what the step achieves, and what a large matrix product does in the same precision
  utilisation            their ratio
  tensor_loader_per_s    augmented, normalised pictures from TensorLoader; file_loader_per_s: from PNG files, two workers
"""

import json
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F

import datasets
import models
import options
import pictures
from augment import Augment
from optimizers import make_optimizer
from utils import say

ROUNDS = 5


def seconds_of(work, device: torch.device) -> float:
    """The wall-clock seconds of one call, the device's own work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def training_step(args: Namespace, device: torch.device, plain: bool):
    """-> a function that takes one training step on a fixed batch; `plain` without channels_last, bf16 and compile."""
    generator = torch.Generator().manual_seed(args.seed)
    size = args.image_size or 32
    images = torch.randn(args.batch_size, 3, size, size, generator=generator).to(device)
    labels = torch.randint(0, 10, (args.batch_size,), generator=generator).to(device)
    layout = torch.contiguous_format if plain else torch.channels_last
    model, images = models.build(args.arch).to(device, memory_format=layout), images.to(memory_format=layout)
    optimizer = make_optimizer(model, args.optimizer, 1e-3, args.weight_decay, "fp32" if plain else args.precision)
    if args.compile and not plain:
        model = torch.compile(model)

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16" and not plain):
            logits = model(images)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def matrix_product(args: Namespace, device: torch.device):
    """-> a function that multiplies two large matrices in the precision of the run, and its FLOPs."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if args.precision == "bf16" else torch.float32)
    return lambda: a @ a, 2 * n**3


def peak(args: Namespace, device: torch.device) -> float:
    """-> the FLOP/s of a large matrix product in the precision of the run: the best of five, or of as many as a
    second allows (an emulated bf16 takes seconds for a single one)."""
    product, flops = matrix_product(args, device)
    times = [seconds_of(product, device)]
    while len(times) < 5 and sum(times) < 1:
        times.append(seconds_of(product, device))
    return flops / min(times)


def operations(arch: str, num_classes: int, sizes: list[int], pictures: int) -> float:
    """-> the FLOPs of training on `pictures` pictures an epoch, whose sides are `sizes`, an item for each epoch. Counted as
    three forward passes: the gradients of the weights and those of the layers' inputs cost about one each."""
    flops = {size: models.count_flops(models.build(arch, num_classes), size) for size in set(sizes)}
    return 3.0 * pictures * sum(flops[size] for size in sizes)


def report_work(args: Namespace, operations: float, seconds: float, device: torch.device) -> None:
    """What a run took: its operations, their speed, and, of a run that took minutes, what this machine could do."""
    say(f"{operations:.2e} operations, counted as three forward passes: {operations / seconds / 1e9:.0f} GFLOP/s")
    if seconds >= 60:  # to measure the peak takes about a second
        say(f"peak: {peak(args, device) / 1e9:.0f} GFLOP/s, a large matrix product in {args.precision}")


def measure_steps(args: Namespace, device: torch.device) -> dict:
    ours, plain = training_step(args, device, plain=False), training_step(args, device, plain=True)
    product, product_flops = matrix_product(args, device)
    flops = 3 * models.count_flops(models.build(args.arch), args.image_size or 32) * args.batch_size
    repeats = 20 if device.type == "cuda" else 1
    times = {"ours": [], "plain": [], "product": []}
    for work in (ours, plain, product):
        work()  # the first call allocates, picks kernels, compiles
    for _ in range(ROUNDS):
        for name, work in (("ours", ours), ("plain", plain), ("product", product)):
            times[name].append(seconds_of(lambda work=work: [work() for _ in range(repeats)], device) / repeats)
    step, plain_step, product_time = (statistics.median(times[name]) for name in ("ours", "plain", "product"))
    return {
        "pictures_per_s": round(args.batch_size / step, 1),
        "plain_pictures_per_s": round(args.batch_size / plain_step, 1),
        "speedup_over_plain": round(plain_step / step, 2),
        "step_gflops": round(flops / args.batch_size / 1e9, 3),
        "tflops": round(flops / step / 1e12, 3),
        "peak_tflops": round(product_flops / product_time / 1e12, 3),
        "utilisation": round(flops / step / (product_flops / product_time), 3),
    }


def measure_loaders(args: Namespace, device: torch.device) -> dict:
    batch = min(args.batch_size, 500)
    count = min(2000, 100 * batch)
    data = datasets.load("sample", limit=count)
    split = datasets.select(data.splits["train"], torch.arange(count))
    normalize = datasets.Normalize([0.5] * 3, [0.25] * 3).to(device)
    with tempfile.TemporaryDirectory() as folder:
        datasets.export(datasets.Data("bench", data.classes, {"train": split}), Path(folder), verbose=False)
        files = pictures.list_classes(Path(folder) / "TRAIN", Path(folder), data.classes)
        loaders = {
            "tensor_loader": datasets.TensorLoader(split, batch, device, Augment(4, True)),
            "file_loader": datasets.FileLoader(files, 32, batch, device, Augment(4, True), workers=2),
        }
        times = {name: [] for name in loaders}
        for _ in range(ROUNDS):
            for name, loader in loaders.items():
                times[name].append(seconds_of(lambda loader=loader: [normalize(x) for x, _ in loader], device))
        speeds = {name: len(loaders[name]) * batch / statistics.median(times[name]) for name in loaders}
    result = {f"{name}_per_s": round(speed) for name, speed in speeds.items()}
    return result | {"tensor_over_file_loader": round(speeds["tensor_loader"] / speeds["file_loader"], 1)}


def run(args: Namespace, device: torch.device) -> None:
    options.fill_in_recipe(args)
    about = {"arch": args.arch, "device": str(device), "precision": args.precision, "batch_size": args.batch_size}
    about |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(about | measure_steps(args, device) | measure_loaders(args, device)))
