"""Behind `python train.py --bench`: how fast is an update of CycleGAN, and how fast could it be?

    python train.py --bench --data sample
    python train.py --bench --image-size 256 --batch-size 8 --precision auto --compile

Prints one line of JSON. All speeds are medians of rounds taken in turn, in one run, since machines drift:
  pairs_per_s         updates as train.py takes them, on a picture of each domain that lies on the device
  plain_pairs_per_s   the same networks and losses in the loop of most tutorials: float32, channels first, eager, a pass for
                      each thing, Adam as it comes
  step_gflops         of one update, a pair's share; counted as run, forwards and backwards
  tflops, peak_tflops what the update achieves, and what a large matrix product does in the same precision
  utilisation         their ratio
"""

import json
import statistics
import time
from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import datasets
import options
import utils
from gans import CycleGAN, least_squares
from utils import fail

ROUNDS = 5


class PlainCycleGAN(CycleGAN):
    """The same update, pass by pass, as it is usually written. With the same weights it has the same losses."""

    plain = True

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        real_a, real_b = real_a.contiguous(), real_b.contiguous()
        g_ab, g_ba, d_a, d_b = (self.networks[name] for name in ("g_ab", "g_ba", "d_a", "d_b"))
        same_a, same_b, fake_a, fake_b = g_ba(real_a), g_ab(real_b), g_ba(real_b), g_ab(real_a)
        self.judge_only(True)
        losses = {"gan_ab": least_squares(d_b(fake_b), 1), "gan_ba": least_squares(d_a(fake_a), 1)}
        losses |= {"cycle_a": F.l1_loss(g_ba(fake_b), real_a), "cycle_b": F.l1_loss(g_ab(fake_a), real_b)}
        losses |= {"identity_a": F.l1_loss(same_a, real_a), "identity_b": F.l1_loss(same_b, real_b)}
        weights = {"gan": 1, "cycle": self.args.lambda_cycle, "identity": self.args.lambda_identity}
        self.update("generators", sum(weights[name.split("_")[0]] * loss for name, loss in losses.items()))
        self.judge_only(False)
        for name, net, real, fake in (("a", d_a, real_a, fake_a), ("b", d_b, real_b, fake_b)):
            old_and_new = self.pools[name].exchange(fake).contiguous()
            losses[f"disc_{name}"] = (least_squares(net(real), 1) + least_squares(net(old_and_new), 0)) / 2
        self.update("discriminators", losses["disc_a"] + losses["disc_b"])
        return losses


def seconds_of(work, device: torch.device, repeats: int) -> float:
    """The wall-clock seconds of one call, the device's own work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - start) / repeats


def count_flops(args: Namespace, device: torch.device) -> int:
    """The floating-point operations of one update on one pair, counted where torch runs them (so not in compiled code)."""
    gan = CycleGAN(Namespace(**vars(args) | {"compile": False}), device)
    with FlopCounterMode(display=False) as counter:
        gan.step(*random_pair(args, device, 1))
    return counter.get_total_flops()


def random_pair(args: Namespace, device: torch.device, batch_size: int) -> list[Tensor]:
    shape = (batch_size, 3, args.image_size, args.image_size)
    return [datasets.to_network(torch.randint(0, 256, shape)).to(device) for _ in "AB"]


def run(args: Namespace, device: torch.device) -> None:
    if args.mode != "cyclegan":
        fail("--bench measures --mode cyclegan")
    name = "sample" if args.data == "sample" else "none"
    options.fill_in_recipe(args, name, args.image_size or (64 if name == "sample" else 256))
    utils.seed_everything(args.seed)
    flops = count_flops(args, device)
    pair = random_pair(args, device, args.batch_size)
    ours, plain = CycleGAN(args, device), PlainCycleGAN(Namespace(**vars(args) | {"compile": False}), device)
    n = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(n, n, device=device, dtype=torch.bfloat16 if args.precision == "bf16" else torch.float32)
    works = {"ours": lambda: ours.step(*pair), "plain": lambda: plain.step(*pair), "product": lambda: matrix @ matrix}
    times = {name: [] for name in works}
    repeats = 10 if device.type == "cuda" else 1
    for work in works.values():
        seconds_of(work, device, 3)  # the first calls allocate, pick kernels, compile
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds_of(work, device, repeats))
    step, plain_step, product = (statistics.median(times[name]) for name in works)
    rate, peak = flops * args.batch_size / step, 2 * n**3 / product
    names = ("mode", "arch", "width", "image_size", "batch_size", "precision", "compile")
    about = {name: getattr(args, name) for name in names}
    about |= {"device": str(device), "torch": torch.__version__, "threads": torch.get_num_threads()}
    speed = {
        "pairs_per_s": round(args.batch_size / step, 2),
        "plain_pairs_per_s": round(args.batch_size / plain_step, 2),
        "speedup_over_plain": round(plain_step / step, 2),
        "step_gflops": round(flops / 1e9, 2),
        "tflops": round(rate / 1e12, 3),
        "peak_tflops": round(peak / 1e12, 3),
        "utilisation": round(rate / peak, 3),
    }
    print(json.dumps(about | speed))
