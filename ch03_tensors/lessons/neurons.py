"""From one neuron to a network: the perceptron, XOR, backpropagation by hand; and entropy.

python -m lessons neurons
python -m lessons loading                  (the next one)
"""

import torch
from torch import Tensor

TITLE = "Neurons, the perceptron, XOR, entropy"
TITLE_ZH = "神经元、感知机、异或与熵"
LESSONS = {
    "4-1": "机器学习和神经网络的基本概念1",
    "4-2": "机器学习和神经网络的基本概念2",
    "4-4": "利用神经网络解决分类和回归问题2",
}
FORMULAS = {
    "neuron": r"y = f\left( \sum_i w_i x_i + b \right)",
    "train_perceptron": r"w \leftarrow w + (t - y) \, x, \quad b \leftarrow b + (t - y)",
    "xor_gradients": r"\delta_2 = \frac{2}{N} (y - t) \, y (1 - y), \quad \delta_1 = \delta_2 w_2^T \odot h (1 - h)",
    "entropy": r"H(p) = -\sum_k p_k \log_2 p_k",
    "cross_entropy_bits": r"H(p, q) = -\sum_k p_k \log_2 q_k = H(p) + D(p \,\|\, q)",
}
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # the four inputs of a logical operation
AND, OR, XOR = (torch.tensor(values) for values in ([0.0, 0, 0, 1], [0.0, 1, 1, 1], [0.0, 1, 1, 0]))


def neuron(x: Tensor, weight: Tensor, bias: float) -> Tensor:
    """A network is made of many copies of one small part: look at that part first. (4-1)

    A neuron (神经元) weighs its inputs, adds them up with a bias, and answers through an activation. Here the activation
    is a step: 1 above zero, else 0 (McCulloch and Pitts, 1943). `(N, D), (D,) -> (N,)`.

    The same weights with another bias make it `and` or `or`:

    >>> weight = torch.tensor([1.0, 1.0])
    >>> neuron(CORNERS, weight, bias=-1.5), neuron(CORNERS, weight, bias=-0.5)
    (tensor([0., 0., 0., 1.]), tensor([0., 1., 1., 1.]))
    """
    return (x @ weight + bias > 0).float()


def train_perceptron(x: Tensor, labels: Tensor, epochs: int) -> tuple[Tensor, float, list[int]]:
    """Weights should not be set by hand: let the mistakes set them. (4-1)

    The perceptron (感知机, Rosenblatt, 1958) takes one sample after the other. A right answer changes nothing; after a
    wrong one, the input is added to the weights or subtracted. `(N, D), (N,) -> (D,), bias, mistakes in each epoch`.

    >>> weight, bias, mistakes = train_perceptron(CORNERS, AND, epochs=8)
    >>> mistakes, torch.equal(neuron(CORNERS, weight, bias), AND)
    ([1, 3, 3, 2, 1, 0, 0, 0], True)

    If a line separates the classes, the mistakes end (Novikoff, 1962). No line separates XOR, and they never do:

    >>> min(train_perceptron(CORNERS, XOR, epochs=1000)[2])
    2
    """
    weight, bias, mistakes = torch.zeros(x.shape[1]), 0.0, []
    for _ in range(epochs):
        wrong = 0
        for sample, label in zip(x, labels, strict=True):
            error = label - neuron(sample, weight, bias)  # -1, 0 or 1
            weight, bias = weight + error * sample, bias + error.item()
            wrong += int(error != 0)
        mistakes.append(wrong)
    return weight, bias, mistakes


def xor_network(x: Tensor) -> Tensor:
    """One neuron draws one line, and many problems need more than one: put a layer in between. (4-2)

    XOR (异或) is `or`, but not `and`. Two hidden neurons compute these two, a third combines them. `(N, 2) -> (N,)`.

    >>> torch.equal(xor_network(CORNERS), XOR)
    True
    """
    either, both = (neuron(x, torch.ones(2), bias) for bias in (-0.5, -1.5))
    return neuron(torch.stack([either, both], dim=1), torch.tensor([1.0, -1.0]), -0.5)


def xor_gradients(x: Tensor, labels: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, ...]:
    """A step has slope 0, so nothing can be learned through it; a sigmoid has a slope everywhere. (4-2)

    Backpropagation (反向传播) by hand through h = sigmoid(x W1 + b1), y = sigmoid(h w2 + b2) and the mean squared error:
    the error goes back through w2, and at each sigmoid it is multiplied by its slope, a (1 - a).
    `(N, D), (N,), (D, H), (H,), (H,), () -> loss and the gradients of the four parameters`.

    >>> parameters = first_parameters(hidden=3, seed=0)
    >>> loss, *gradients = xor_gradients(CORNERS, XOR, *parameters)

    autograd finds the same:

    >>> for p in parameters:
    ...     _ = p.requires_grad_()
    >>> w1, b1, w2, b2 = parameters
    >>> answer = torch.sigmoid(torch.sigmoid(CORNERS @ w1 + b1) @ w2 + b2)
    >>> (answer - XOR).square().mean().backward()
    >>> all(torch.allclose(p.grad, gradient, atol=1e-7) for p, gradient in zip(parameters, gradients))
    True
    """
    hidden = torch.sigmoid(x @ w1 + b1)  # (N, H)
    answer = torch.sigmoid(hidden @ w2 + b2)  # (N,)
    loss = (answer - labels).square().mean()
    d_out = 2 / len(x) * (answer - labels) * answer * (1 - answer)  # (N,)
    d_hidden = d_out[:, None] * w2 * hidden * (1 - hidden)  # (N, H)
    return loss, x.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_out, d_out.sum()


def first_parameters(hidden: int, seed: int) -> list[Tensor]:
    """Small random weights, and biases of zero: (2, H), (H,), (H,), ().

    >>> [tuple(p.shape) for p in first_parameters(3, seed=0)]
    [(2, 3), (3,), (3,), ()]
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, hidden, generator=generator), torch.randn(hidden, generator=generator)
    return [first, torch.zeros(hidden), second, torch.zeros(())]


def learn_xor(steps: int, lr: float = 5.0, hidden: int = 3, seed: int = 0) -> tuple[list[float], Tensor]:
    """Does it learn what one neuron cannot? Forwards, backwards, a step, again. (4-2)

    Plain gradient descent with the gradients from above; -> the loss of each step, and the answers at the end, `(4,)`.

    >>> losses, answers = learn_xor(steps=1000)
    >>> f"{losses[0]:.2f} {losses[-1]:.4f}", answers.round()
    ('0.25 0.0006', tensor([0., 1., 1., 0.]))
    """
    parameters, losses = first_parameters(hidden, seed), []
    for _ in range(steps):
        loss, *gradients = xor_gradients(CORNERS, XOR, *parameters)
        parameters = [p - lr * gradient for p, gradient in zip(parameters, gradients, strict=True)]
        losses.append(loss.item())
    w1, b1, w2, b2 = parameters
    return losses, torch.sigmoid(torch.sigmoid(CORNERS @ w1 + b1) @ w2 + b2)


def entropy(p: Tensor) -> Tensor:
    """How uncertain is an answer? The loss of every classifier is built on a measure of that. (4-4)

    Entropy (熵, Shannon, 1948) in bits: how many yes-or-no questions an answer costs on average, if they are well asked.
    `(K,) -> ()`; 0 log 0 counts as 0.

    A fair coin costs one question, a coin that nearly always shows heads less, a sure answer none, one of eight three:

    >>> for p in ([0.5, 0.5], [0.9, 0.1], [1.0, 0.0], [1 / 8] * 8):
    ...     print(f"{entropy(torch.tensor(p)):.3f}")
    1.000
    0.469
    0.000
    3.000

    torch has it for a distribution, in natural units: one bit is log 2 of them.

    >>> torch.distributions.Categorical(torch.tensor([0.9, 0.1])).entropy() / torch.log(torch.tensor(2.0))
    tensor(0.4690)
    """
    return torch.special.xlogy(p, 1 / p).sum() / torch.log(torch.tensor(2.0))


def cross_entropy_bits(p: Tensor, q: Tensor) -> Tensor:
    """A model believes q, the truth is p: what does the wrong belief cost? (4-4)

    Cross-entropy (交叉熵): the questions are asked as q suggests, the answers come as p says. It is the entropy of p, which
    nobody can save, plus the KL divergence, which training can bring to 0. `(K,), (K,) -> ()`.

    >>> p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    >>> entropy(p), cross_entropy_bits(p, q), cross_entropy_bits(p, p)
    (tensor(1.5000), tensor(1.7500), tensor(1.5000))

    With a label, p is one-hot; what is left is -log q of the right class: the loss of classification.

    >>> cross_entropy_bits(torch.tensor([0.0, 1.0, 0.0]), q)
    tensor(2.)
    """
    return torch.special.xlogy(p, 1 / q).sum() / torch.log(torch.tensor(2.0))
