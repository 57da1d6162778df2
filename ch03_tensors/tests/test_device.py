"""The way to a GPU, checked without one.

Fake tensors have a device and a shape, and no numbers. A tensor that was made on another device raises, and so does
asking for a number (`.item()`), for which a GPU would wait in each step. Gradients need a real device: whole steps run on the
CPU, where reads of numbers are counted.
"""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import models
import train

GPU = torch.device("cuda")
# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.mark.parametrize("arch", models.MODELS)
@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_each_network_and_loss_stays_on_the_gpu(arch, classes):
    with FakeTensorMode():
        with GPU:  # where .to(device) would bring them
            model = models.build(arch, 2, len(classes) or 1)
            x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64) if classes else torch.zeros(4, 1)
        loss = train.make_loss(SimpleNamespace(classes=classes), x, y)(model)
        assert loss.device.type == "cuda"


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def reads_of_an_epoch(steps):
    x, y = torch.zeros(4 * steps, 2), torch.arange(4 * steps) % 2
    model, args = models.build("mlp", 2, 2), Namespace(seed=0, batch_size=4, precision="fp32")
    optimizer, data = torch.optim.SGD(model.parameters(), 0.01), SimpleNamespace(classes=("a", "b"))
    with Reads() as reads:
        train.train_one_epoch(model, data, x, y, optimizer, args, 0)
    return reads.count


def test_no_step_reads_a_number():
    """The epoch's end does, once, for its mean loss; so a longer epoch has no more reads."""
    assert reads_of_an_epoch(2) == reads_of_an_epoch(5) > 0
