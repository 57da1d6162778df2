"""The models, and the ways to give them their first weights.

python models.py                   # lists them
python train.py --arch relu_mlp --init he --problem spirals
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lessons.initialisation import he_normal, xavier_uniform
from utils import fail


class Line(nn.Module):
    """y = x W^T + b, `(N, D) -> (N, K)`. With one input and one output its loss is a surface over w and b.

    >>> Line(1, 1)(torch.zeros(5, 1)).shape
    torch.Size([5, 1])
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.out = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class MLP(nn.Module):
    """Two hidden layers of 32 tanh units, `(N, D) -> (N, K)`. Smooth, and at ease with inputs around 0.

    >>> MLP(2, 2)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))  # (N, 32)
        x = torch.tanh(self.second(x))  # (N, 32)
        return self.out(x)


class ReluMLP(MLP):
    """The same with ReLU, `(N, D) -> (N, K)`: made of straight pieces.

    >>> ReluMLP(2, 2)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.second(F.relu(self.first(x)))))


MODELS = {"line": Line, "mlp": MLP, "relu_mlp": ReluMLP}
INITS = {
    "torch": "torch's default for nn.Linear: uniform on +-1 / sqrt(in)",
    "zeros": "all 0: the units of a layer stay equal for ever",
    "ones": "all 1: equal as well, and large",
    "small": "normal, standard deviation 0.01: the signal dies on its way",
    "large": "normal, standard deviation 1: the units saturate",
    "xavier": "Glorot and Bengio 2010, for tanh",
    "he": "He et al. 2015, for ReLU",
}


def build(arch: str, inputs: int, outputs: int) -> nn.Module:
    """The model `arch`; a wrong name lists the right ones.

    >>> sum(p.numel() for p in build("mlp", 2, 2).parameters())
    1218
    """
    if arch not in MODELS:
        fail(f"no model is called {arch!r}; there are: {', '.join(MODELS)}")
    return MODELS[arch](inputs, outputs)


@torch.no_grad()
def initialise(model: nn.Module, init: str) -> None:
    """Gives all weights the values of `init`, and all biases 0 (torch's own: both as torch does).

    >>> model = build("line", 1, 1)
    >>> initialise(model, "ones")
    >>> model.out.weight.item(), model.out.bias.item()
    (1.0, 0.0)
    """
    if init not in INITS:
        fail(f"no initialisation is called {init!r}; there are: {', '.join(INITS)}")
    if init == "torch":
        return
    makers = {
        "zeros": torch.zeros,
        "ones": torch.ones,
        "small": lambda shape: 0.01 * torch.randn(shape),
        "large": torch.randn,
        "xavier": xavier_uniform,
        "he": he_normal,
    }
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(makers[init](tuple(module.weight.shape)))
            module.bias.zero_()


if __name__ == "__main__":
    for name, cls in MODELS.items():
        parameters = sum(p.numel() for p in build(name, 2, 2).parameters())
        print(f"--arch {name:<9} {parameters:>5} parameters (2 inputs, 2 outputs): {cls.__doc__.splitlines()[0]}")
    for name, what in INITS.items():
        print(f"--init {name:<9} {what}")
