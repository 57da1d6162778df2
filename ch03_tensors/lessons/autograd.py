"""Derivatives, gradients, and how autograd computes them.

    python -m lessons autograd         (with a picture)
    python -m lessons modules          (the next one)

autograd records each operation on tensors with `requires_grad` in a graph, and walks it backwards by the chain rule.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

TITLE = "autograd: derivatives, gradients, Function"
TITLE_ZH = "autograd：导数、梯度与 Function"
LESSONS = {
    "3-27": "Pytorch与autograd-导数-方向导数-偏导数-梯度的概念",
    "3-28": "Pytorch与autograd-梯度与机器学习最优解",
    "3-29": "Pytorch与autograd-Variable、tensor",
    "3-30": "Pytorch与autograd-如何计算梯度",
    "3-31": "Pytorch与autograd中的几个重要概念-variable-grad-grad_fn",
    "3-32": "Pytorch与autograd中的几个重要概念-autograd例子",
    "3-33": "Pytorch与autograd中的几个重要概念-function",
}
FORMULAS = {
    "numeric_derivative": r"f'(x) \approx \frac{f(x+h) - f(x-h)}{2h}",
    "numeric_gradient": r"\nabla f = \left( \frac{\partial f}{\partial x_1}, \ldots, \frac{\partial f}{\partial x_N} \right)",
    "directional_derivative": r"\frac{\partial f}{\partial v} = \nabla f \cdot \frac{v}{\|v\|}",
    "descend": r"x \leftarrow x - \eta \, \nabla f(x)",
    "vector_jacobian": r"v^T J, \quad J_{ij} = \frac{\partial y_i}{\partial x_j}",
}
FIGURES = {"descend": "draw_descent"}


def numeric_derivative(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """To learn is to ask: if I move this number a little, does the loss rise or fall? (3-27)

    The derivative (导数): how fast f grows at x, by two nearby values. `() -> ()`.

    (f(x + h) - f(x - h)) / 2h. In float64, or nothing is left of the difference.

    >>> x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> y = x**3 + torch.sin(x)
    >>> y.backward()
    >>> print(f"{x.grad:.6f} {numeric_derivative(lambda x: x**3 + torch.sin(x), x.detach()):.6f}")
    11.583853 11.583853
    """
    return (f(x + step) - f(x - step)) / (2 * step)


def numeric_gradient(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """A model has many parameters; each needs an answer of its own. (3-27)

    A partial derivative (偏导数) moves one coordinate; the gradient (梯度) holds them all. `(N,) -> (N,)`.

    f(x, y) = x^2 y has the partial derivatives 2 x y and x^2: at (3, 2) these are 12 and 9.

    >>> def f(p):
    ...     return p[0] ** 2 * p[1]
    >>> p = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> f(p).backward()
    >>> p.grad
    tensor([12.,  9.], dtype=torch.float64)
    >>> torch.allclose(p.grad, numeric_gradient(f, p.detach()))
    True
    """
    moves = torch.eye(len(x), dtype=x.dtype)
    at = x.new_zeros(())
    return torch.stack([numeric_derivative(lambda t, move=move: f(x + t * move), at, step) for move in moves])


def directional_derivative(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """A step moves all parameters at once: how fast does the loss change along it? (3-27)

    The directional derivative (方向导数): the gradient times the unit vector of the direction. `(N,) -> ()`.

    >>> def f(p):
    ...     return p[0] ** 2 * p[1]
    >>> p = torch.tensor([3.0, 2.0], dtype=torch.float64)
    >>> directional_derivative(f, p, torch.tensor([3.0, 4.0], dtype=torch.float64))
    tensor(14.4000, dtype=torch.float64)

    It is greatest along the gradient, where it is the gradient's length; across, it is 0:

    >>> along = directional_derivative(f, p, torch.tensor([12.0, 9.0], dtype=torch.float64))
    >>> across = directional_derivative(f, p, torch.tensor([-9.0, 12.0], dtype=torch.float64))
    >>> print(f"{along:.4f} {across.abs():.4f}")
    15.0000 0.0000

    Numerically, as a check:

    >>> unit = torch.tensor([0.6, 0.8], dtype=torch.float64)
    >>> print(f"{numeric_derivative(lambda t: f(p + t * unit), torch.tensor(0.0, dtype=torch.float64)):.4f}")
    14.4000
    """
    p = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(p), p)
    return gradient @ (direction / torch.linalg.vector_norm(direction))


def descend(f: Callable[[Tensor], Tensor], start: Tensor, lr: float, steps: int) -> Tensor:
    """If the loss falls that way, go that way, in small steps: so are nearly all networks trained. (3-28)

    Down the gradient to an optimum: x <- x - lr * gradient. `(N,) -> (steps + 1, N)`, the path.

    The father-and-son example of gradient descent: son = w * father, one pair (100, 110), w starts at 1, squared
    error, learning rate 0.00001. The error is -10, the gradient 2 * 100 * -10 = -2000, the first step 0.02.

    >>> father, son = torch.tensor(100.0), torch.tensor(110.0)
    >>> path = descend(lambda w: ((w * father - son) ** 2).sum(), torch.tensor([1.0]), lr=1e-5, steps=30)
    >>> path[[0, 1, 2, 30], 0]
    tensor([1.0000, 1.0200, 1.0360, 1.0999])

    At the end the gradient is zero. That is the best for a bowl (a convex loss); in general it can be a local minimum
    or a saddle, and which one is reached depends on the start:

    >>> two_valleys = lambda x: (x**4 - 2 * x**2 + 0.3 * x).sum()
    >>> [round(descend(two_valleys, torch.tensor([x]), 0.02, 200)[-1].item(), 3) for x in (-0.5, 0.5)]
    [-1.036, 0.96]

    A learning rate too large for the slope leaps over the valley, further each time:

    >>> descend(lambda w: ((w * father - son) ** 2).sum(), torch.tensor([1.0]), lr=1.1e-4, steps=3)[:, 0]
    tensor([1.0000, 1.2200, 0.9560, 1.2728])
    """
    x, path = start.clone().requires_grad_(), [start.clone()]
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(f(x), x)
        with torch.no_grad():
            x -= lr * gradient
        path.append(x.detach().clone())
    return torch.stack(path)


def draw_descent(folder: Path) -> Path:
    """A function with two valleys, its negative gradient as arrows, and two descents."""
    from matplotlib.figure import Figure

    def f(p: Tensor) -> Tensor:
        return p[..., 0] ** 4 - 2 * p[..., 0] ** 2 + 0.3 * p[..., 0] + p[..., 1] ** 2

    x, y = torch.meshgrid(torch.linspace(-1.6, 1.6, 60), torch.linspace(-1.2, 1.2, 60), indexing="xy")
    coarse = torch.stack([x, y], dim=-1)[::5, ::5].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(coarse).sum(), coarse)
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.contour(x, y, f(torch.stack([x, y], dim=-1)), levels=25, linewidths=0.7)
    axis.quiver(*coarse.detach().unbind(-1), *(-gradient).unbind(-1), color="gray", width=0.003)
    for start in ([-0.2, 1.0], [0.2, 1.0]):
        axis.plot(*descend(lambda p: f(p).sum(), torch.tensor(start), 0.03, 80).T, marker=".", label=f"from {start}")
    axis.set(title="-gradient, and two descents")
    axis.legend()
    figure.savefig(folder / "autograd_descent.png", dpi=110)
    return folder / "autograd_descent.png"


def vector_jacobian(y_of_x: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """A million parameters and one loss: a single pass backwards gives all derivatives. (3-29)

    `backward(v)` computes v^T J: the Jacobian times a weight for each output. `(N,), (M,) -> (N,)`.

    Early PyTorch wrapped a tensor in a Variable to differentiate it. The two are one class now; a tensor only needs
    `requires_grad`. `torch.autograd.Variable` now hands back a tensor; `torch.autograd.variable`, in small letters, is
    an error.

    >>> x = torch.autograd.Variable(torch.rand(4), requires_grad=True)
    >>> type(x) is torch.Tensor
    True
    >>> y = x * 3
    >>> y.backward(torch.FloatTensor([1, 2, 3, 4]))
    >>> x.grad
    tensor([ 3.,  6.,  9., 12.])

    Only a scalar has one gradient; for more outputs, autograd asks for the weights.

    >>> (x * 3).backward()
    Traceback (most recent call last):
        ...
    RuntimeError: grad can be implicitly created only for scalar outputs

    All rows of the Jacobian, one backward pass for each, is what `torch.autograd.functional.jacobian` gives:

    >>> x, v = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0, 100.0])
    >>> f = lambda x: torch.stack([x[0] * x[1], x[0] ** 2, x[1]])
    >>> torch.autograd.functional.jacobian(f, x)
    tensor([[2., 1.],
            [2., 0.],
            [0., 1.]])
    >>> vector_jacobian(f, x, v), v @ torch.autograd.functional.jacobian(f, x)
    (tensor([ 22., 101.]), tensor([ 22., 101.]))
    """
    x = x.clone().requires_grad_()
    y_of_x(x).backward(v)
    return x.grad


def two_layer_gradients(x: Tensor, w1: Tensor, w2: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Once by hand, and backpropagation is no magic any more. (3-30)

    The chain rule by hand: loss = (w2 relu(w1 x) - target)^2. `(D,), (H, D), (H,), () -> (H, D), (H,)`.

    Forwards, keep what the way back needs; backwards, multiply by each local derivative. This is all that
    backpropagation is.

    >>> x, target = torch.tensor([1.0, 2.0]), torch.tensor(1.0)
    >>> w1 = torch.tensor([[0.5, 0.5], [1.0, -1.0]], requires_grad=True)
    >>> w2 = torch.tensor([2.0, 3.0], requires_grad=True)
    >>> loss = (w2 @ torch.relu(w1 @ x) - target) ** 2
    >>> loss.backward()
    >>> w1.grad, w2.grad
    (tensor([[ 8., 16.],
            [ 0.,  0.]]), tensor([6., 0.]))
    >>> two_layer_gradients(x, w1.detach(), w2.detach(), target)
    (tensor([[ 8., 16.],
            [ 0.,  0.]]), tensor([6., 0.]))
    """
    pre = w1 @ x  # (H,)
    hidden = pre.clamp(min=0)
    error = w2 @ hidden - target
    d_out = 2 * error
    d_w2 = d_out * hidden
    d_pre = d_out * w2 * (pre > 0)  # the gradient passes only where relu was open
    return torch.outer(d_pre, x), d_w2


def graph_of(tensor: Tensor) -> str:
    """Why is my gradient None, why does it grow? The graph that autograd recorded shows it. (3-31)

    Each result keeps `grad_fn`, the node that made it; the chain of nodes down to the leaves is the graph.

    A leaf (叶子张量) is a tensor that no recorded operation made. Only leaves get `.grad`.

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> x = torch.tensor(3.0)
    >>> y = (w * x).exp()
    >>> w.is_leaf, x.is_leaf, y.is_leaf
    (True, True, False)
    >>> w.grad_fn, y.grad_fn.name()
    (None, 'ExpBackward0')
    >>> graph_of(y)
    'ExpBackward0(MulBackward0(torch::autograd::AccumulateGrad()))'

    `retain_grad` keeps the gradient of a result too; without it, autograd drops it on the way.

    >>> product = w * x
    >>> product.retain_grad()
    >>> product.square().backward()
    >>> product.grad, w.grad
    (tensor(12.), tensor(36.))

    Gradients add up until somebody sets them to zero, which is why a training loop does so at each step:

    >>> (w * x).backward()
    >>> w.grad
    tensor(39.)
    >>> w.grad.zero_()
    tensor(0.)
    """

    def walk(node) -> str:
        parents = [walk(parent) for parent, _ in node.next_functions if parent is not None]
        return f"{node.name()}({', '.join(parents)})"

    return walk(tensor.grad_fn)


def second_derivative(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Penalties on gradients, and Newton's method, need the derivative of a derivative. (3-32)

    `torch.autograd.grad` returns gradients, touches no `.grad`; `create_graph`: they can be differentiated.

    Double backward: the derivative of the derivative. `(N,) -> (N,), (N,)`.

    >>> second_derivative(lambda x: x**4, torch.tensor([1.0, 2.0]))
    (tensor([ 4., 32.]), tensor([12., 48.]))

    A graph is freed by the first backward pass:

    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> y = x.exp()
    >>> _ = torch.autograd.grad(y, x, retain_graph=True)
    >>> torch.autograd.grad(y, x)
    (tensor(2.7183),)
    >>> try:
    ...     torch.autograd.grad(y, x)
    ... except RuntimeError as error:
    ...     print(str(error)[:52])
    Trying to backward through the graph a second time (

    Where no gradient is wanted, nothing is recorded, and memory is saved; `detach` cuts one tensor off.

    >>> with torch.no_grad():
    ...     print((x * 2).requires_grad)
    False
    >>> with torch.inference_mode():
    ...     print((x * 2).requires_grad)
    False
    >>> x.detach().requires_grad, torch.is_grad_enabled()
    (False, True)
    """
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


class Line(torch.autograd.Function):
    """An operation that autograd does not know, or knows only slowly, can bring its own derivative. (3-33)

    A function with a backward of its own: y = w x + b, the course's `line`.

    `forward` saves what `backward` needs in ctx; `backward` takes the gradient of the loss by the output and returns
    one by each input.

    >>> issubclass(Line, torch.autograd.Function)
    True
    >>> w, x, b = (torch.full((2, 2), value, requires_grad=True) for value in (2.0, 3.0, 1.0))
    >>> out = Line.apply(w, x, b)
    >>> out
    tensor([[7., 7.],
            [7., 7.]], grad_fn=<LineBackward>)
    >>> out.backward(torch.ones(2, 2))
    >>> w.grad, x.grad, b.grad
    (tensor([[3., 3.],
            [3., 3.]]), tensor([[2., 2.],
            [2., 2.]]), tensor([[1., 1.],
            [1., 1.]]))

    `gradcheck` compares a backward with differences of the forward, `gradgradcheck` does so for the second derivative:

    >>> inputs = [torch.rand(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    >>> torch.autograd.gradcheck(Line.apply, inputs), torch.autograd.gradgradcheck(Line.apply, inputs)
    (True, True)
    """

    @staticmethod
    def forward(ctx, w: Tensor, x: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(w, x)
        return w * x + b

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w, x = ctx.saved_tensors
        return grad_out * x, grad_out * w, grad_out


class RoundThrough(torch.autograd.Function):
    """Rounding has no useful derivative, and yet quantised networks must be trained. (3-33)

    Where a Function is needed: round has derivative 0 everywhere; going back, pretend it is 1.

    The straight-through estimator (Bengio et al. 2013), with which quantised networks are trained.

    >>> x = torch.tensor([0.2, 1.7], requires_grad=True)
    >>> RoundThrough.apply(x).sum().backward()
    >>> RoundThrough.apply(x).detach(), x.grad
    (tensor([0., 2.]), tensor([1., 1.]))
    >>> x.grad = None
    >>> torch.round(x).sum().backward()
    >>> x.grad
    tensor([0., 0.])
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> Tensor:
        return grad_out
