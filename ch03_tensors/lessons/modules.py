"""torch.nn: parameters, layers, containers, Module, hooks.

python -m lessons modules
python -m lessons activations_losses       (the next one)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "torch.nn: Parameter, layers, containers, Module, hooks"
TITLE_ZH = "nn 库：Parameter、层、容器、Module、hook"
LESSONS = {"3-34": "Pytorch与nn库"}


class Linear(nn.Module):
    """Every network contains it; written once by hand, its parameters are no secret. (3-34)

    The fully connected layer y = x W^T + b, `(.., in) -> (.., out)`, as torch's.

    A tensor wrapped in `nn.Parameter` and assigned to a Module is found by `parameters()`, and so by an optimizer.

    >>> layer = Linear(3, 2)
    >>> [(name, tuple(p.shape)) for name, p in layer.named_parameters()]
    [('weight', (2, 3)), ('bias', (2,))]
    >>> isinstance(layer.weight, torch.Tensor), layer.weight.requires_grad
    (True, True)
    >>> reference = nn.Linear(3, 2)
    >>> reference.load_state_dict(layer.state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(layer(x), reference(x), atol=1e-6)
    True
    >>> torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-6)
    True

    Two linear layers in a row are one linear layer: without something nonlinear between, depth adds nothing.

    >>> first, second = Linear(3, 4), Linear(4, 2)
    >>> merged = F.linear(x, second.weight @ first.weight, second.weight @ first.bias + second.bias)
    >>> torch.allclose(second(first(x)), merged, atol=1e-5)
    True
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Conv2d(nn.Module):
    """To know what a layer stores and what it computes, write it once. (3-34)

    A convolution by cutting out every window and multiplying, `(N, C, H, W) -> (N, K, H', W')`.

    `nn.Conv2d` is a Module that owns its weights; `F.conv2d` is the bare function, to which you hand them.

    >>> layer = Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    >>> x = torch.randn(2, 3, 7, 9)
    >>> layer(x).shape
    torch.Size([2, 8, 4, 5])
    >>> torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1), atol=1e-5)
    True
    >>> torch.nn.functional.conv2d is F.conv2d, nn.functional is torch.nn.functional
    (True, True)
    >>> reference = torch.nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, dilation=1, groups=1, bias=True)
    >>> [tuple(p.shape) for p in reference.parameters()] == [tuple(p.shape) for p in layer.parameters()]
    True
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.weight.shape[-1], self.stride
        windows = F.pad(x, [self.padding] * 4).unfold(2, k, s).unfold(3, k, s)  # (N, C, H', W', k, k)
        return torch.einsum("nchwij,kcij->nkhw", windows, self.weight) + self.bias.view(-1, 1, 1)


class Polynomial(nn.Module):
    """Parameters in a plain list are never trained, and nothing complains: keep them where they are found. (3-34)

    A Module with a ParameterList: y = a_0 + a_1 x + a_2 x^2 + ..., `(N,) -> (N,)`.

    A plain Python list would hide the parameters; ParameterList shows them.

    >>> model = Polynomial([1.0, 0.0, 2.0])
    >>> model(torch.tensor([0.0, 1.0, 3.0])).detach()
    tensor([ 1.,  3., 19.])
    >>> sum(1 for _ in model.parameters())
    3
    >>> class Hidden(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.coefficients = [nn.Parameter(torch.zeros(()))]
    >>> sum(1 for _ in Hidden().parameters())
    0
    """

    def __init__(self, coefficients: list[float]):
        super().__init__()
        self.coefficients = nn.ParameterList(nn.Parameter(torch.tensor(value)) for value in coefficients)

    def forward(self, x: Tensor) -> Tensor:
        return sum(a * x**power for power, a in enumerate(self.coefficients))


def two_sequentials() -> tuple[nn.Sequential, nn.Sequential]:
    """Most networks are a chain of layers: name the chain, and write no forward. (3-34)

    `nn.Sequential` runs its modules in order; with an OrderedDict or add_module they have names.

    >>> plain, named = two_sequentials()
    >>> plain(torch.ones(5, 2)).shape, [name for name, _ in named.named_children()]
    (torch.Size([5, 1]), ['hidden', 'act', 'out'])
    >>> plain[1], named.act
    (ReLU(), ReLU())
    """
    named = nn.Sequential()
    for name, layer in (("hidden", nn.Linear(2, 4)), ("act", nn.ReLU()), ("out", nn.Linear(4, 1))):
        named.add_module(name, layer)
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), named


class Tower(nn.Module):
    """Networks repeat layers in a loop, and some have several heads to choose from. (3-34)

    ModuleList for layers to loop over, ModuleDict for layers to choose by name. `(N, D) -> (N, out)`.

    >>> tower = Tower(width=4, depth=3)
    >>> tower(torch.ones(2, 4), head="age").shape, tower(torch.ones(2, 4), head="sex").shape
    (torch.Size([2, 1]), torch.Size([2, 2]))
    >>> len(tower.layers), list(tower.heads)
    (3, ['age', 'sex'])
    >>> sorted({name.split(".")[0] for name, _ in tower.named_parameters()})
    ['heads', 'layers']

    Modules nest, and what is done to the outer one reaches the inner ones: `train`, `eval`, `to`, `state_dict`.

    >>> tower.eval().layers[0].training, tower.double().heads["age"].weight.dtype
    (False, torch.float64)
    >>> tower(torch.ones(2, 4).double(), head="name")
    Traceback (most recent call last):
        ...
    KeyError: 'name'
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.heads = nn.ModuleDict({"age": nn.Linear(width, 1), "sex": nn.Linear(width, 2)})

    def forward(self, x: Tensor, head: str) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.heads[head](x)


def shapes_through(model: nn.Module, x: Tensor) -> list[str]:
    """What goes on inside a finished network? Look without changing its code. (3-34)

    A forward hook is called after a module's forward: here it notes each output's shape.

    >>> shapes_through(two_sequentials()[0], torch.ones(5, 2))
    ['0 Linear -> (5, 4)', '1 ReLU -> (5, 4)', '2 Linear -> (5, 1)']

    A backward hook sees gradients pass; `remove` takes a hook away.

    >>> layer, seen = nn.Linear(2, 1), []
    >>> handle = layer.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(grad_out[0].shape))
    >>> x = torch.ones(3, 2, requires_grad=True)
    >>> layer(x).sum().backward()
    >>> handle.remove()
    >>> layer(x).sum().backward()
    >>> seen
    [torch.Size([3, 1])]

    What a module must keep but not train is a buffer: it moves and saves with the parameters.

    >>> layer.register_buffer("steps", torch.tensor(0))
    >>> list(layer.state_dict()), len(list(layer.parameters()))
    (['weight', 'bias', 'steps'], 2)
    """
    lines, handles = [], []
    for name, module in model.named_children():

        def note(module: nn.Module, inputs: tuple, output: Tensor, name: str = name) -> None:
            lines.append(f"{name} {type(module).__name__} -> {tuple(output.shape)}")

        handles.append(module.register_forward_hook(note))
    model(x)
    for handle in handles:
        handle.remove()
    return lines
