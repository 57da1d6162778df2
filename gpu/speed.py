"""The speed run: fastnet on CIFAR-10, many times in one process. In chapter 6's folder: python speed.py --runs 10

A run before the first warms up: it compiles and picks kernels. Each measured run begins with fresh weights of its own seed and
is timed from their whitening to the test pictures' answers (six views, as `test.py --tta`), without reading the data: as the
published records are. Prints seconds and test accuracy of each run, their means and deviations, and the operations of a run.
The test split chooses nothing here: each run reports its last weights.
"""

import argparse
import json
import os
import statistics
import sys
import time
from argparse import Namespace

import torch

sys.path.insert(0, os.getcwd())
sys.argv[0] = "train.py"

import bench  # noqa: E402
import datasets  # noqa: E402
import options  # noqa: E402
import test as tester  # noqa: E402
import train  # noqa: E402
import utils  # noqa: E402
from optimizers import make_optimizer, make_scheduler  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--limit", help="training pictures, and as many for the test; for trying this out")
    parser.add_argument("--epochs", help="for trying this out")
    return parser.parse_args()


class SpeedRun:
    """The data on the device, and one network whose weights each run replaces, so that it is compiled once."""

    def __init__(self, flags: argparse.Namespace):
        words = ["--arch", "fastnet", "--no-val", "--precision", "auto", "--data", flags.data, "--device", flags.device]
        words += ["--data-root", flags.data_root]
        words += [word for name in ("limit", "epochs") if (v := getattr(flags, name)) for word in (f"--{name}", v)]
        self.args = options.parse("", words)
        self.device = utils.pick_device(self.args.device, same_sizes=True)
        self.args.precision = utils.pick_precision(self.args.precision, self.device)
        data, _ = train.load_data(self.args)
        options.fill_in_recipe(self.args, data, 32, len(data.splits["train"]))
        self.loader, _, mean, std = train.make_loaders(data, self.args, self.device)
        self.normalize = datasets.Normalize(mean, std).to(self.device)
        self.classes = len(data.classes)
        test = datasets.load(self.args.data, flags.data_root, None, ("test",)).splits["test"]
        test = datasets.select(test, torch.arange(min(len(test), self.args.limit or len(test))))
        self.images, self.labels = self.normalize(test.images.to(self.device)), test.labels.to(self.device)
        self.model = train.make_model(self.args, self.classes, self.device)
        self.called = torch.compile(self.model, dynamic=False) if flags.compile else self.model  # a graph for each size

    def __call__(self, seed: int) -> tuple[float, float]:
        """-> seconds, and accuracy on the test split."""
        args = Namespace(**vars(self.args) | {"seed": seed})
        self.loader.seed, self.loader.epoch = seed, 0
        utils.seed_everything(seed)
        fresh = train.make_model(args, self.classes, self.device)
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        self.model.load_state_dict(fresh.state_dict())
        self.model.whiten(self.normalize(next(iter(self.loader))[0]))
        optimizer = make_optimizer(self.model, args.optimizer, args.lr, args.weight_decay, args.precision)
        scheduler = make_scheduler(optimizer, args.schedule, args.epochs, len(self.loader))
        for epoch in range(args.epochs):
            utils.seed_everything(seed, epoch)
            self.loader.epoch, size = epoch, train.training_size(args, epoch, 32)
            train.train_one_epoch(self.called, self.normalize, self.loader, optimizer, scheduler, args, size, None)
        accuracy = self.test(args)
        wait()
        return time.perf_counter() - start, accuracy

    @torch.inference_mode()
    def test(self, args: Namespace) -> float:
        self.model.eval()
        right = torch.zeros((), device=self.device)
        for images, labels in zip(self.images.split(1000), self.labels.split(1000), strict=True):
            with train.autocast(args.precision, self.device):
                right += (tester.six_views(self.called, images).argmax(1) == labels).sum()
        return right.item() / len(self.labels)

    def operations(self) -> float:
        """Of one training, counted as three forward passes."""
        sizes = [train.training_size(self.args, epoch, 32) or 32 for epoch in range(self.args.epochs)]
        pictures = len(self.loader) * self.loader.batch_size
        return bench.operations("fastnet", self.classes, sizes, pictures)


def main() -> None:
    flags = parse()
    speed_run = SpeedRun(flags)
    start = time.perf_counter()
    speed_run(1000)
    warm_up = time.perf_counter() - start
    seconds, accuracies = zip(*(speed_run(seed) for seed in range(flags.runs)), strict=True)
    found = {"runs": flags.runs, "warm_up_s": round(warm_up, 2)}
    for name, values, digits in (("seconds", seconds, 3), ("accuracy", accuracies, 4)):
        found |= {f"{name}_mean": round(statistics.mean(values), digits)}
        found |= {f"{name}_sd": round(statistics.stdev(values), digits)} if len(values) > 1 else {}
        found[name] = [round(value, digits) for value in values]
    found |= {"operations": float(f"{speed_run.operations():.3g}"), "precision": speed_run.args.precision}
    print(json.dumps(found | {"compiled": flags.compile, "data": speed_run.args.data}))


if __name__ == "__main__":
    main()
