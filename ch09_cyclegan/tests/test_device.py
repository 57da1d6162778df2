"""The way to a GPU, checked without one.

Fake tensors have a device and a shape, and no numbers. A tensor that was made on another device raises, and so does
asking for a number (`.item()`), for which a GPU would wait in each step. Gradients need a real device: whole steps run on the
CPU, where reads of numbers are counted.
"""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import datasets
import gans
import models
import train

GPU, CPU = torch.device("cuda"), torch.device("cpu")

# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()
ARGS = {"arch": "resnet3", "width": 4, "patch": 16, "image_size": 32, "upsample": "transpose", "lr": 0.01, "seed": 0}
ARGS |= {"weight_decay": 0.0, "precision": "fp32", "compile": False, "pool": 2}
ARGS |= {"lambda_cycle": 10.0, "lambda_identity": 5.0, "lambda_l1": 100.0}


def data_of(count, size=32):
    return datasets.Data(
        "some", *(torch.zeros(count, 3, size + 4, size + 4, dtype=torch.uint8) for _ in "AB"), [], [], size
    )


@pytest.mark.parametrize("arch", models.MODELS)
@pytest.mark.parametrize("upsample", models.UPSAMPLE)
def test_each_generator_and_loss_stays_on_the_gpu(arch, upsample):
    with FakeTensorMode():
        with GPU:  # where .to(device) would bring them
            generator = models.build(arch, 32, 4, upsample)
            judge, single = models.PatchDiscriminator(16, 4), models.DcganDiscriminator(32, 4)
            real = datasets.to_network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        fake = generator(gans.noise(2, GPU) if arch == "dcgan" else real)
        scores = judge(fake), single(fake)
        found = [loss(one, 1.0) for loss in (gans.least_squares, gans.log_loss) for one in scores]
        assert {x.device.type for x in (fake, F.l1_loss(fake, real), *scores, *found)} == {"cuda"}


@pytest.mark.parametrize("mode", gans.MODES)
def test_what_a_gan_holds_lies_on_the_gpu(mode, monkeypatch):
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda net, device, **_: net
    )  # fake tensors refuse it: they are made there
    with FakeTensorMode():
        with GPU:
            gan = gans.MODES[mode](Namespace(**ARGS | ({"arch": "dcgan"} if mode in datasets.FROM_NOISE else {})), GPU)
        loader = datasets.PairLoader(data_of(4), 2, GPU)
        a, b = (loader.cut(domain, [[0, 1, 2, 1], [1, 0, 0, 0]]) for domain in (loader.a, loader.b))
        rows = gan.rows(a, b)
        old = gans.ImagePool(2).exchange(b)
        assert {x.device.type for x in (a, b, old, *rows.values())} == {"cuda"}


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", gans.MODES)
def test_no_step_reads_a_number(mode):
    """The last step does, once, to see whether the losses are finite; so a longer epoch has no more reads."""
    args, counts = Namespace(**ARGS | ({"arch": "dcgan"} if mode in datasets.FROM_NOISE else {})), []
    for steps in (2, 5):
        gan = gans.MODES[mode](args, CPU)
        loader = datasets.PairLoader(data_of(2 * steps), 2, CPU)
        batches = Ready(loader)  # its plan is made of Python numbers, on the CPU
        with Reads() as reads:
            train.train_one_epoch(gan, batches, args)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


class Ready(list):
    epoch = 0
