"""Trains first networks: prices from tables (boston), pictures into classes (mnist), noise off pictures (denoise).

    python train.py boston                          # 10-fold cross-validation of ten averaged networks, three times
    python train.py mnist --arch lenet5             # or cnn, alexnet, mlp, convnet
    python train.py denoise --arch deep_skip        # or deep, shallow, shallow_skip
    torchrun --nproc-per-node 2 train.py mnist      # the same on two processes

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, checkpoints.
`python test.py TASK` then measures that task's newest run on what was held out. The README says what to expect.
"""

import boston
import denoise
import mnist
import utils
from options import parse

TASKS = {"boston": boston.train, "mnist": mnist.train, "denoise": denoise.train}


def main(argv=None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device)
        args.precision = utils.pick_precision(args.precision, device)
        utils.keep_freed_memory()
        TASKS[args.task](args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch or fold")
