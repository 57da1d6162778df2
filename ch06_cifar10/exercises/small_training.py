"""A training of seconds, for the exercise on resuming: dropout, momentum, a schedule and a new order in each epoch."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

BATCH = 8


def make() -> tuple[nn.Module, SGD, LambdaLR]:
    """A fresh network, its optimizer and its schedule. The first weights are drawn from torch's random numbers."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, LambdaLR(optimizer, lambda epoch: 0.5**epoch)


def train_one_epoch(model: nn.Module, optimizer: SGD, scheduler: LambdaLR) -> tuple[list[float], float]:
    """-> the loss of each step, and the learning rate of this epoch. The order is drawn from torch's random numbers."""
    generator = torch.Generator().manual_seed(1)  # the data are always the same
    images, labels = torch.randn(32, 3, 4, 4, generator=generator), torch.randint(3, (32,), generator=generator)
    rate, losses = optimizer.param_groups[0]["lr"], []
    model.train()
    for rows in torch.randperm(len(images)).split(BATCH):
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    return losses, rate
