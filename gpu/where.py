"""Where a training step's time goes. In a chapter's folder (6 or 12): python where.py FLAGS OF TRAIN.PY...

Profiles ten steps with torch.profiler: the share of the time in which the device worked, and the kernels that took most of it.
"""

import json
import os
import sys
import time
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, os.getcwd())
sys.argv[0] = "train.py"

import bench  # noqa: E402
import datasets  # noqa: E402
import options  # noqa: E402
import utils  # noqa: E402

STEPS, SHOWN = 10, 6


def make_step(args, device):
    """-> a training step as this chapter's bench.py takes it."""
    if hasattr(bench, "training_step"):
        options.fill_in_recipe(args)
        return bench.training_step(args, device, plain=False)
    data, codec = bench.load_data(args)
    batches = datasets.TokenBatches(data.splits["train"], codec, 0, device, args.seed)
    options.fill_in_recipe(args, data.name, batches)
    source, target, _ = next(iter(batches))
    return partial(bench.step, args, *bench.make(args, codec, device), source, target)


def main() -> None:
    args = options.parse("", sys.argv[1:])
    device = utils.pick_device(args.device, same_sizes=True)
    args.precision = utils.pick_precision(args.precision, device)
    step, on_gpu = make_step(args, device), device.type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(3):
        step()
    wait()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        for _ in range(STEPS):
            step()
        wait()
    seconds = time.perf_counter() - start
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = sorted(profiled.key_averages(), key=lambda row: -getattr(row, name))
    total = sum(getattr(row, name) for row in rows)
    top = {row.key[:60]: round(getattr(row, name) / total, 3) for row in rows[:SHOWN]}
    busy = {"device_busy": round(total / 1e6 / seconds, 3)} if on_gpu else {}
    print(json.dumps({"step_ms": round(1000 * seconds / STEPS, 2)} | busy | {"most_time": top}))


if __name__ == "__main__":
    main()
