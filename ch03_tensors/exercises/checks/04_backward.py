import torch

from exercises.comparing import compare

NAME = "gradients"
TITLE = {"en": "Backward by hand", "zh": "手写反向传播"}
TEXT = {
    "en": """
loss.backward() is the chain rule, one operation at a time. Do one layer by hand, without autograd: y = relu(x @ w).
Write `gradients(x, w, g)`: x is (N, D), w is (D, K), and g (N, K) is the gradient of the loss with respect to y.
Return those with respect to x (N, D) and to w (D, K).
""",
    "zh": """
loss.backward() 就是链式法则，一次一个运算。不用自动求导，手写一层：y = relu(x @ w)。写出 `gradients(x, w, g)`：x 的形
状是 (N, D)，w 是 (D, K)，g (N, K) 是损失对 y 的梯度。返回对 x（N, D）和对 w（D, K）的梯度。
""",
}
HINTS = {
    "en": [
        "First through relu: where x @ w is not positive, no gradient passes.",
        "Then the product: which matrix products of g, w and x have the shapes (N, D) and (D, K)?",
    ],
    "zh": [
        "先经过 relu：x @ w 不为正的地方，梯度不通过。",
        "再经过矩阵乘法：g、w、x 的哪些乘积形状是 (N, D) 和 (D, K)？",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(draw(4, 3), draw(3, 5), draw(4, 5)), (draw(3, 3), draw(3, 3) + 0.5, draw(3, 3))]


def right(x, w, g):
    x, w = x.requires_grad_(), w.requires_grad_()
    return torch.autograd.grad((x @ w).relu(), (x, w), g)


def no_relu(x, w, g):
    return g @ w.T, x.T @ g


def mask_of_g(x, w, g):
    return g.relu() @ w.T, x.T @ g.relu()


def mean(x, w, g):
    of_x, of_w = right(x, w, g)
    return of_x, of_w / len(x)


REASONS = {
    no_relu: ("relu is missing: where x @ w <= 0 no gradient passes", "缺少 relu：x @ w <= 0 处梯度不通过"),
    mask_of_g: (
        "relu was applied to g; its mask is x @ w > 0, whatever sign g has",
        "对 g 用了 relu；掩码是 x @ w > 0，与 g 的符号无关",
    ),
    mean: (
        "the gradient of w is the sum over the rows, not the mean: the loss has its mean in g already",
        "w 的梯度是对各行求和，不是平均：平均已在 g 里",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
