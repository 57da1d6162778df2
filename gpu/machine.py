"""What this machine is and what it can do at best: python machine.py cuda|cpu [SIDE]. Prints one line of JSON.

name, cores, flags, torch, driver, clocks: what the system says. products: TFLOP/s of a product of two SIDE x SIDE matrices, the
median of nine, in fp32, in TF32 and in bf16; bf16_over_fp32: how much faster bf16 is than fp32 as the chapters compute, which
decides what `--precision auto` takes on a CPU: of products of 256 x 256. On a GPU: of the large ones, against TF32. A CPU that
only emulates bf16 would need minutes for a large product: there bf16 is that of 256 x 256 too.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
QUERY = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,memory.total,power.limit,temperature.gpu"


def processor() -> dict:
    """-> name, cores and vector instructions of the CPU, as far as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = facts.get("flags", facts.get("Features", "")).split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return {"cpu": name, "cores": cores, "flags": [flag for flag in FLAGS if flag in flags]}


def graphics() -> dict:
    """-> what nvidia-smi says of the first GPU; nothing if it does not run."""
    try:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader", "--id=0"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERY.split(","), (word.strip() for word in answer.split(",")), strict=False))


def tflops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """The speed of a matrix product: the median of nine, after three that warm up."""
    a, times = torch.randn(side, side, device=device).to(dtype), []
    for turn in range(12):
        start = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for the device
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(times) / 1e12


def main() -> None:
    device = torch.device(sys.argv[1])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"error: this PyTorch ({torch.__version__}) sees no CUDA device; --device cpu --dry tries the plan"
        )
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 8192 if device.type == "cuda" else 2048
    about = processor() | {"python": platform.python_version(), "torch": torch.__version__, "device": device.type}
    about["name"] = torch.cuda.get_device_name() if device.type == "cuda" else about["cpu"]
    products = {"fp32": tflops(device, torch.float32, side)}
    if device.type == "cuda":
        about |= graphics() | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        torch.set_float32_matmul_precision("high")
        products["tf32"] = tflops(device, torch.float32, side)
    if device.type == "cuda":
        products["bf16"] = tflops(device, torch.bfloat16, side)
        ratio = products["bf16"] / products["tf32"]
    else:  # as utils.pick_precision() measures it
        small = tflops(device, torch.bfloat16, 256)
        ratio = small / tflops(device, torch.float32, 256)
        products["bf16"] = tflops(device, torch.bfloat16, side) if ratio > 0.2 else small  # emulated: minutes
    about["products"] = {name: round(value, 3) for name, value in products.items()}
    about["bf16_over_fp32"] = round(ratio, 2)
    print(json.dumps(about | {"threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
