"""The way to a GPU, checked without one.

Fake tensors have a device and a shape, and no numbers. A tensor that was made on another device raises, and so does
asking for a number (`.item()`), for which a GPU would wait in each step. Gradients need a real device: whole steps run on the
CPU, where reads of numbers are counted.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import datasets
import models
import options
import scores
import train
import utils

GPU, CPU = torch.device("cuda"), torch.device("cpu")

# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture
def loose_packing(monkeypatch):
    """Packing reads how long the texts are, which must lie on the CPU. Here nothing is packed."""

    def pack(x, lengths, **_):
        assert lengths.device.type == "cpu"
        return x

    monkeypatch.setattr(models, "pack_padded_sequence", pack)
    monkeypatch.setattr(models, "pad_packed_sequence", lambda x, **_: (x, None))


def gru(self, x, start=None):
    """In the place of nn.GRU, which has no kernel for fake tensors: its shapes, by products with its own weights."""
    ends = ("", "_reverse")[: 1 + self.bidirectional]
    out = torch.cat([F.linear(x, getattr(self, f"weight_ih_l0{end}")[: self.hidden_size]) for end in ends], 2)
    last = torch.stack([out[:, -1, : self.hidden_size]] * (len(ends) * self.num_layers))
    return out, last if start is None else start + last


def three(tensor):
    """In the place of int(tensor), which fake tensors do not have."""
    assert tensor.device.type == "cpu"
    return 3


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("arch", models.MODELS)
def test_each_network_and_loss_stays_on_the_gpu(arch, loose_packing, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__int__", three)
    monkeypatch.setattr(torch.nn.GRU, "forward", gru)
    sizes = {"hidden": 500} if arch == "fasttext" else {}
    with FakeTensorMode(), torch.backends.cudnn.flags(enabled=False):  # cuDNN would ask for a driver
        with GPU:  # where .to(device) would bring them
            model = models.build(arch, 1000, 3, **sizes)
            ids, labels = torch.full((4, 12), 5), torch.zeros(4, dtype=torch.int64)
            several, weight = torch.zeros(4, 3), torch.ones(3)
        logits = model(ids)
        losses = [scores.loss_of(logits, labels, 0.1, weight), scores.loss_of(logits, several, 0.1, weight)]
        losses += [train.tally(logits, labels), train.tally(logits, several)]
        shown = model.eval().attend(ids) if arch in models.WITH_ATTENTION else ()
        assert {x.device.type for x in (logits, *losses, *shown)} == {"cuda"}


def test_a_loader_gathers_on_the_gpu():
    with FakeTensorMode():
        with GPU:
            on_gpu = [torch.zeros(40, dtype=torch.int32), *(torch.zeros(8, dtype=torch.int64) for _ in range(3))]
        split = datasets.Split(*on_gpu, np.arange(8), 3)
        chosen = torch.zeros(4, dtype=torch.int64, device=GPU)
        assert datasets.gather(split, chosen, longest=5).device.type == "cuda"


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


class Ready(datasets.BucketLoader):
    batches = []

    def __iter__(self):
        return iter(self.batches)


def reads_of_an_epoch(monkeypatch, arch, steps, several):
    torch.manual_seed(0)
    lengths = torch.randint(2, 9, (8 * steps,))
    labels = torch.ones(8 * steps, 3) if several else torch.arange(8 * steps) % 3
    ids = torch.randint(2, 30, (int(lengths.sum()),)).int()
    split = datasets.Split(ids, lengths.cumsum(0) - lengths, lengths, labels, np.arange(8 * steps), 3)
    model = models.build(arch, 30, 3, **({"hidden": 50} if arch == "fasttext" else {"dim": 8, "hidden": 8}))
    loader = datasets.BucketLoader(split, 8, CPU, train=True)
    batches = list(loader)  # made before: how long the longest text of a batch is, the loader knows on the CPU
    monkeypatch.setattr(Ready, "batches", batches)
    loader.__class__ = Ready
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    scheduler = utils.one_cycle(optimizer, steps)
    args = options.parse("", ["--arch", arch, "--lr", "0.001"])
    with Reads() as reads:
        row = train.train_one_epoch(model, loader, optimizer, scheduler, args)
    assert math.isfinite(row["train_loss"])
    return reads.count


@pytest.mark.parametrize("arch", ["fasttext", "textcnn", "bilstm", "transformer"])
@pytest.mark.parametrize("several", [False, True])
def test_no_step_reads_a_number(monkeypatch, loose_packing, arch, several):
    """The last step does, once, to see whether the loss is finite; so a longer epoch has no more reads."""
    few, many = (reads_of_an_epoch(monkeypatch, arch, steps, several) for steps in (2, 5))
    assert few == many > 0
