"""What a machine-learning problem is made of, and what a tensor is.

    python -m lessons elements
    python -m lessons creation         (the next one)

Every problem of this course has the same five elements: data, a model with parameters, a loss that says how wrong
the model is, an optimizer that changes the parameters, and a metric a human understands. All of them are tensors
(张量) or functions of tensors.
"""

import sys

import numpy as np
import torch
from torch import Tensor

TITLE = "Elements of machine learning, and the tensor"
TITLE_ZH = "机器学习的基本元素与张量"
LESSONS = {
    "2-2": "环境配置",
    "3-1": "机器学习中的分类与回归问题-机器学习基本构成元素",
    "3-2": "Tensor的基本定义",
    "3-3": "Tensor与机器学习的关系",
}
FORMULAS = {
    "fit_regression": r"w = \frac{\sum_i (x_i-\bar x)(y_i-\bar y)}{\sum_i (x_i-\bar x)^2}, \quad b = \bar y - w \bar x",
}


def environment() -> dict[str, object]:
    """What fails on a new machine mostly fails for its versions: look at them first, and name them in a question. (2-2)

    The versions of Python and torch; the CUDA that this build of torch was made for (None: a build for CPUs); whether a
    GPU answers. `torch.cuda.is_available()` is False for one of three reasons: no NVIDIA GPU, no driver, or a build for
    CPUs.

    >>> list(environment())
    ['python', 'torch', 'built for CUDA', 'GPU answers', 'GPUs']
    >>> environment()["torch"] == torch.__version__, int(torch.__version__.split(".")[0]) >= 2
    (True, True)

    A first computation, on the GPU if there is one:

    >>> device = "cuda" if torch.cuda.is_available() else "cpu"
    >>> torch.ones(2, 2, device=device).sum().item()
    4.0
    """
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "built for CUDA": torch.version.cuda,
        "GPU answers": torch.cuda.is_available(),
        "GPUs": torch.cuda.device_count(),
    }


def fit_regression(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Prices, temperatures and marks are numbers: to predict one, fit a line first. (3-1)

    Regression (回归): the target is a number. Least squares of y = w x + b, `(N,), (N,) -> (w, b)`.

    The model is a line, the loss the mean squared error, and for once the best parameters have a formula
    (the normal equations), so that no optimizer is needed.

    >>> hours = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> marks = torch.tensor([52.0, 54.0, 56.0, 58.0])
    >>> w, b = fit_regression(hours, marks)
    >>> print(f"marks = {w:.2f} * hours + {b:.2f}")
    marks = 2.00 * hours + 50.00
    """
    x_centred, y_centred = x - x.mean(), y - y.mean()
    w = (x_centred * y_centred).sum() / x_centred.square().sum()
    return w.item(), (y.mean() - w * x.mean()).item()


def fit_classes(x: Tensor, labels: Tensor) -> Tensor:
    """Is it a cat or a dog? To answer with one of a few names, compare with the mean of each class. (3-1)

    Classification (分类): the target is one of K classes. The class means, `(N, D), (N,) -> (K, D)`.

    The simplest classifier that learns: remember the mean of each class, answer with the nearest one.

    >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [6.0, 5.0]])
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> means = fit_classes(x, labels)
    >>> means
    tensor([[0.0000, 0.5000],
            [5.5000, 5.0000]])

    The answer for new points, and the metric: accuracy (准确率), the share of right answers.

    >>> new, truth = torch.tensor([[1.0, 1.0], [4.0, 4.0], [3.0, 3.0]]), torch.tensor([0, 1, 0])
    >>> answers = torch.cdist(new, means).argmin(dim=1)
    >>> answers
    tensor([0, 1, 1])
    >>> print(f"accuracy {(answers == truth).float().mean().item():.3f}")
    accuracy 0.667
    """
    return torch.stack([x[labels == k].mean(dim=0) for k in labels.unique()])


def describe(value) -> str:
    """Most errors in a network are wrong shapes or types, so look at these first. (3-2)

    A scalar (标量) has 0 dimensions, a vector (向量) 1, a matrix (矩阵) 2; a tensor any number.

    >>> describe(torch.tensor(3.5))
    'scalar, shape (), 1 elements, torch.float32'
    >>> describe(torch.tensor([1, 2, 3]))
    'vector, shape (3,), 3 elements, torch.int64'
    >>> describe(torch.ones(2, 3))
    'matrix, shape (2, 3), 6 elements, torch.float32'
    >>> describe(torch.zeros(8, 3, 32, 32))
    'tensor of 4 dimensions, shape (8, 3, 32, 32), 24576 elements, torch.float32'

    `torch.is_tensor` tells a tensor from anything else, `torch.is_storage` the flat block of memory below a tensor;
    `torch.numel` counts the elements.

    >>> numbers, y = [1, 2, 3, 4, 5], torch.randn(1, 2, 3, 4, 5)
    >>> torch.is_tensor(numbers), torch.is_storage(numbers)
    (False, False)
    >>> torch.is_tensor(y), torch.is_storage(y), torch.is_storage(y.untyped_storage())
    (True, False, True)
    >>> torch.numel(y)
    120
    """
    if not torch.is_tensor(value):
        raise TypeError(f"not a tensor: {type(value).__name__}")
    kind = ("scalar", "vector", "matrix")[value.dim()] if value.dim() <= 2 else f"tensor of {value.dim()} dimensions"
    return f"{kind}, shape {tuple(value.shape)}, {value.numel()} elements, {value.dtype}"


def to_tensor(array: np.ndarray, copy: bool = False) -> Tensor:
    """Data comes from NumPy, OpenCV or pandas; know when torch shares its memory and when it copies. (3-3)

    NumPy and torch: `torch.from_numpy` and `.numpy()` share the memory, `torch.tensor` copies.

    >>> array = np.array([1, 2, 3, 4, 5], dtype=np.int32)
    >>> shared = to_tensor(array)
    >>> shared
    tensor([1, 2, 3, 4, 5], dtype=torch.int32)
    >>> array[0] = 100
    >>> shared
    tensor([100,   2,   3,   4,   5], dtype=torch.int32)
    >>> shared.numpy()
    array([100,   2,   3,   4,   5], dtype=int32)

    The copy does not follow:

    >>> copied = to_tensor(array, copy=True)
    >>> array[0] = 1
    >>> copied
    tensor([100,   2,   3,   4,   5], dtype=torch.int32)

    A list has no memory layout to share: make an array or a tensor of it first.

    >>> torch.from_numpy([1, 2, 3])
    Traceback (most recent call last):
        ...
    TypeError: expected np.ndarray (got list)
    """
    return torch.tensor(array) if copy else torch.from_numpy(array)
