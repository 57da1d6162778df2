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

import compress
import datasets
import models
import train

GPU = torch.device("cuda")
# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.mark.parametrize("arch", models.MODELS)
def test_each_network_and_loss_stays_on_the_gpu(arch):
    with FakeTensorMode():
        with GPU:  # where .to(device) would bring them
            model = models.Deployable(models.build(arch), [0.5] * 3, [0.2] * 3)
            pixels, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
        split = datasets.Split(pixels, labels)
        for images, right in datasets.Batches(split, 2, GPU, shuffle=True):
            logits = model(images)
            losses = [F.cross_entropy(logits, right), compress.distillation_loss(logits, logits.detach())]
            assert {loss.device.type for loss in losses} == {"cuda"}


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def reads_of_an_epoch(steps):
    split = datasets.Split(torch.zeros(4 * steps, 3, 16, 16, dtype=torch.uint8), torch.arange(4 * steps) % 10)
    model, prepare = models.build("tiny"), models.Deployable(torch.nn.Identity(), [0.5] * 3, [0.2] * 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    loader = datasets.Batches(split, 4, torch.device("cpu"), shuffle=True)
    with Reads() as reads:
        train.train_one_epoch(model, prepare, loader, optimizer, scheduler, Namespace(precision="fp32", lr=0.01))
    return reads.count


def test_no_step_reads_a_number():
    """The epoch's end does, once, for its mean loss; so a longer epoch has no more reads."""
    assert reads_of_an_epoch(2) == reads_of_an_epoch(5)
