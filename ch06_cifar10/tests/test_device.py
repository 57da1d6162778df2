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
import models
import train
import utils
from augment import Augment
from optimizers import make_optimizer
from test import six_views

GPU, CPU = torch.device("cuda"), torch.device("cpu")

# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.mark.parametrize("arch", models.MODELS)
def test_each_network_augmentation_and_loss_stays_on_the_gpu(arch):
    with FakeTensorMode():
        with GPU:  # where .to(device) would bring them
            model, normalize = models.build(arch), datasets.Normalize([0.5] * 3, [0.25] * 3)
            pixels, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
        images = normalize(Augment(4, True, 8, 0.1)(pixels, labels, epoch=0))
        if arch == "fastnet":
            model.whiten(images)
        logits = model(F.interpolate(images, size=(24, 24), mode="bilinear", antialias=True))
        weights = torch.ones(10, device=GPU)
        loss = F.cross_entropy(model(images), labels, weights, label_smoothing=0.1)
        views = six_views(model.eval(), images)
        assert {x.device.type for x in (images, logits, loss, views)} == {"cuda"}


def network_for(optimizer):
    return models.FastNet(widths=(8, 8, 8)) if optimizer == "muon" else models.LeNet5()


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_an_optimizer_step_stays_on_the_gpu(name):
    with FakeTensorMode():
        with GPU:
            model = network_for(name)
        optimizer = make_optimizer(model, name, 0.1, 5e-4)
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        optimizer.step()
        states = [tensor for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor)]
        assert states and {tensor.device.type for tensor in states if tensor.ndim} == {"cuda"}


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def reads_of_an_epoch(name, steps):
    model = network_for(name).to(memory_format=torch.channels_last)
    split = datasets.Split(torch.zeros(8 * steps, 3, 32, 32, dtype=torch.uint8), torch.arange(8 * steps) % 10, [])
    loader = datasets.TensorLoader(split, 8, CPU, Augment(2, True, 4, 0.1))
    optimizer = make_optimizer(model, name, 0.01, 5e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    args = Namespace(label_smoothing=0.1, precision="fp32", lr=0.01, mixup=0.2)
    normalize = datasets.Normalize([0.5] * 3, [0.25] * 3)
    with Reads() as reads:
        train.train_one_epoch(model, normalize, loader, optimizer, scheduler, args, None, None)
    return reads.count


@pytest.mark.parametrize("name", ["sgd", "adam", "muon"])
def test_no_step_reads_a_number(name):
    """The last step does, once, to see whether the loss is finite; so a longer epoch has no more reads."""
    assert reads_of_an_epoch(name, 2) == reads_of_an_epoch(name, 5) > 0


@pytest.mark.parametrize("same_sizes", [False, True])
def test_kernels_are_chosen_where_the_gpu_is_picked(same_sizes, monkeypatch):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    for name, answer in (("is_available", True), ("set_device", None), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda *words, answer=answer: answer)
    try:
        assert utils.pick_device("auto", same_sizes=same_sizes) == torch.device("cuda", 0)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.benchmark is same_sizes
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]
