"""The way to a GPU, checked without one.

Fake tensors have a device and a shape, and no numbers. A tensor that was made on another device raises, and so does
asking for a number (`.item()`), for which a GPU would wait in each step. Gradients need a real device: whole steps run on the
CPU, where reads of numbers are counted.
"""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import datasets
import losses
import models
import options
import prepare
import sample
import train
from text import Rules

GPU, CPU = torch.device("cuda"), torch.device("cpu")

# Autograd starts its threads in the first backward, one for each device known by then. Fake devices are none yet: so none is
# started, and later tests can fork.
torch.ones(1, requires_grad=True).sum().backward()
PAIRS = sample.make(60)
CODEC = datasets.Codec.of(PAIRS, (Rules(language=""), Rules()), 1, 50)
SMALL = {"width": 16, "hidden": 16, "layers": 1, "decoder_layers": 1, "heads": 2, "feedforward": 16}


@pytest.fixture
def loose_packing(monkeypatch):
    """Packing reads how long the sentences are, which must lie on the CPU. Here nothing is packed."""

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


def build(arch):
    sizes = {name: size for name, size in SMALL.items() if name in models.MODELS[arch][1]}
    return models.build(arch, len(CODEC.source), len(CODEC.target), **sizes)


def moved(model):
    """What model.to(GPU) does, which fake tensors refuse."""
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(torch.empty(p.shape, device=GPU)))
        assert not list(module.named_buffers(recurse=False))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("arch", models.MODELS)
def test_each_network_and_loss_stays_on_the_gpu(arch, loose_packing, monkeypatch):
    monkeypatch.setattr(torch.nn.GRU, "forward", gru)
    model = build(arch)
    with FakeTensorMode(), torch.backends.cudnn.flags(enabled=False):  # cuDNN would ask for a driver
        source, target = torch.full((3, 7), 5, device=GPU), torch.full((3, 5), 5, device=GPU)
        moved(model)
        logits = model(source, target[:, :-1])
        free = train.free_running(model, source, target[:, :-1])
        found = [losses.smoothed(logits, target[:, 1:], 0.1)[0], losses.masked_nll(free, target[:, 1:])]
        weights = model.attention(source, target[:, :-1])
        found += [weights] if model.has_attention else []
        assert logits.shape == free.shape and {x.device.type for x in (logits, free, *found)} == {"cuda"}


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


class Ready:
    """Batches that are made already: how long their longest sentences are, TokenBatches knows on the CPU."""

    epoch = 0

    def __init__(self, count):
        made = datasets.TokenBatches(PAIRS, CODEC, 100, CPU, seed=0)
        self.batches, self.source = list(made)[:count], made.source

    def __iter__(self):
        return iter(self.batches)


def arguments(arch):
    args = options.parse("", ["--arch", arch, "--epochs", "2", "--lr", "0.001", "--warmup", "0.1"])
    args.label_smoothing, args.weight_decay = 0.1, 0.01
    return args


def reads_of(work):
    with Reads() as reads:
        work()
    return reads.count


@pytest.mark.parametrize("arch", models.MODELS)
def test_no_step_reads_a_number(arch, loose_packing):
    """The last step does, once, to see whether the loss is finite; so a longer epoch has no more reads. The coin that decides
    whether a batch is given the right tokens is thrown on the CPU: one read a step."""
    model, args = build(arch), arguments(arch)
    learner, optimizer = train.Learner(model), prepare.make_optimizer(model, args)
    few, many = (
        reads_of(lambda steps=steps: train.train_one_epoch(learner, Ready(steps), optimizer, args)) for steps in (2, 5)
    )
    assert many - few == 5 - 2 and few - 2 > 0


def test_validation_reads_its_sums_once(monkeypatch, loose_packing):
    monkeypatch.setattr(train, "translate", lambda *_: {})
    monkeypatch.setattr(train, "as_text", lambda *_: ["a"] * len(datasets.by_source(PAIRS)))
    model, args = build("general"), arguments("general")
    few, many = (reads_of(lambda n=n: train.evaluate(model, Ready(n), CODEC, PAIRS, args)) for n in (2, 4))
    assert few == many
