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

import boston
import datasets
import denoise
import loop
import mnist
import models

GPU = torch.device("cuda")

# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()
META = {"mean": 0.1, "std": 0.3, "image_size": 28}
NETWORKS = [(task, arch) for task, archs in models.MODELS.items() for arch in archs]


@pytest.mark.parametrize(("task", "arch"), NETWORKS)
def test_each_network_augmentation_and_loss_stays_on_the_gpu(task, arch):
    with FakeTensorMode():
        with GPU:  # where .to(device) would bring them
            model, example = models.example(task, arch)
            pixels, labels = torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
        if task == "boston":
            predicted = model(example)
            losses = [boston.penalty(predicted, torch.zeros_like(predicted), huber) for huber in (0.0, 1.0)]
        elif task == "denoise":
            clean = pixels.float() / 255
            seeded = denoise.add_noise(clean, 0.3, torch.Generator())
            losses = [F.mse_loss(model(denoise.add_noise(clean, 0.3)), clean), denoise.psnr(model(seeded), clean)]
        else:
            images = mnist.normalize(mnist.augmented(pixels, 1.0), META | {"image_size": example.shape[-1]})
            losses = [F.cross_entropy(model(images), labels)]
        assert {loss.device.type for loss in losses} == {"cuda"}


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def reads_of_an_epoch(task, steps):
    model = models.build(task, "convnet" if task == "mnist" else "shallow")
    args = Namespace(batch_size=4, seed=0, precision="fp32", lr=0.001, weight_decay=0.0, augment=1.0, noise=0.3)
    split = datasets.Split(torch.zeros(4 * steps, 1, 28, 28, dtype=torch.uint8), torch.arange(4 * steps) % 10)
    optimizer = loop.make_optimizer(model, args)
    scheduler, average = loop.make_schedule(optimizer, steps), loop.Average(model, 0.99)
    with Reads() as reads:
        if task == "mnist":
            mnist.train_one_epoch(model, average, split, optimizer, scheduler, META, args, 0, None)
        else:
            denoise.train_one_epoch(model, split, optimizer, scheduler, args, 0)
    return reads.count


@pytest.mark.parametrize("task", ["mnist", "denoise"])
def test_no_step_reads_a_number(task):
    """The last step does, once, to see whether the loss is finite; so a longer epoch has no more reads."""
    assert reads_of_an_epoch(task, 2) == reads_of_an_epoch(task, 5) > 0
