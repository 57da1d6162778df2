"""What training and measuring begin with: the pairs, the codec, the network, its optimizer, its precision."""

from argparse import Namespace
from contextlib import nullcontext

import torch
from torch import nn

import datasets
import models
from datasets import Codec
from options import SIZES, subwords_of
from utils import fail


def load_data(args: Namespace) -> tuple[datasets.Data, Codec]:
    """The training pairs that are not too long, as --limit wants them, and the codec counted on them. --quick limits the
    validation pairs too."""
    data = datasets.load(args.data, args.data_root, args.chinese, args.script, args.reverse, args.split)
    train, unused = data.splits["train"], []
    if args.limit:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(args.seed)).tolist()
        train, unused = ([train[i] for i in part] for part in (order[: args.limit], order[args.limit :]))
    if args.quick:
        data.splits["val"] = data.splits["val"][: args.limit]
    codec = Codec.of(train, data.rules, args.min_count, args.max_length, subwords_of(args))
    short = datasets.not_too_long(train, codec, args.max_length)
    data.left_out[f"longer than {args.max_length} tokens"] = len(train) - len(short)
    if not short:
        fail(f"--max-length {args.max_length}: all training pairs are longer")
    if len(short) < len(train) and args.subwords is None:  # words of long pairs do not count
        codec = Codec.of(short, data.rules, args.min_count, args.max_length)
    data.splits["unused"] = unused + list(dict.fromkeys(train).keys() - dict.fromkeys(short).keys())
    data.splits["train"] = short
    return data, codec


def sizes_of(args: Namespace) -> dict[str, int]:
    """The sizes of the network that this architecture has."""
    return {name: getattr(args, name) for name in SIZES if getattr(args, name) is not None}


def make_model(args: Namespace, codec: Codec, device: torch.device) -> nn.Module:
    return models.build(args.arch, len(codec.source), len(codec.target), **sizes_of(args)).to(device)


def make_optimizer(model: nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """AdamW; only matrices decay, not biases, normalisations and embeddings (rare words would fade away)."""
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and "embedding" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim <= 1 or "embedding" in name]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, args.lr, betas=(0.9, 0.98), eps=1e-9, fused=True)


def autocast(args: Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()
