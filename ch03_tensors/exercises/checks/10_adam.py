import torch

from exercises.comparing import compare

NAME = "adam"
TITLE = {"en": "Adam by its formula", "zh": "按公式写 Adam"}
TEXT = {
    "en": """
Adam divides each gradient by its usual size, so that all parameters move by about lr in a step. Write
`adam(p, gradients, lr, betas, eps)`: p is a tensor, gradients the list of the steps' gradients; the result is p after
all steps. m and v are running means of g and g^2 with beta 1 and beta 2, both from 0; both are corrected for that
start; the step is lr * m / (sqrt(v) + eps). Without torch.optim.
""",
    "zh": """
Adam 把每个梯度除以它通常的大小，于是所有参数每步大约移动 lr。写出 `adam(p, gradients, lr, betas, eps)`：p 是张量，
gradients 是各步梯度的列表；结果是所有步之后的 p。m 和 v 是 g 和 g^2 的移动平均，系数为 beta 1 和 beta 2，都从 0 开
始；都要修正这个起点；步长是 lr * m / (sqrt(v) + eps)。不用 torch.optim。
""",
}
HINTS = {
    "en": [
        "m = beta 1 * m + (1 - beta 1) * g, and v likewise with g squared.",
        "In step t (from 1) divide m by 1 - beta 1 ** t and v by 1 - beta 2 ** t.",
    ],
    "zh": [
        "m = beta 1 * m + (1 - beta 1) * g，v 同理，用 g 的平方。",
        "在第 t 步（从 1 数起），m 除以 1 - beta 1 ** t，v 除以 1 - beta 2 ** t。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [
    (draw(3), [draw(3)], 0.1, (0.9, 0.99), 0.05),
    (draw(2, 3), [draw(2, 3), draw(3, 2).T - 1, draw(2, 3) * 3], 0.01, (0.8, 0.9), 0.1),
]


def right(p, gradients, lr, betas, eps):
    p = torch.nn.Parameter(p)
    optimizer = torch.optim.Adam([p], lr, betas, eps)
    for p.grad in gradients:
        optimizer.step()
    return p


def variant(p, gradients, lr, betas, eps, correct=True, inside=False, root=True):
    m, v = 0 * p, 0 * p
    for t, g in enumerate(gradients, 1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = (m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)) if correct else (m, v)
        p = p - lr * m_hat / ((v_hat + eps).sqrt() if inside else (v_hat.sqrt() if root else v_hat) + eps)
    return p


def no_correction(*words):
    return variant(*words, correct=False)


def eps_inside(*words):
    return variant(*words, inside=True)


def no_root(*words):
    return variant(*words, root=False)


REASONS = {
    no_correction: (
        "m and v began at 0, which is not corrected: divide by 1 - beta ** t",
        "没有修正 m 和 v 从 0 开始：应除以 1 - beta ** t",
    ),
    eps_inside: ("eps is inside the root; it belongs outside", "eps 在根号里面；应在外面"),
    no_root: ("divide by the root of v", "应除以 v 的平方根"),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
