"""Statistics, histograms, distributions and how to differentiate through them, sampling and seeds.

python -m lessons statistics
python -m lessons linalg           (the next one)
"""

import math

import torch
from torch import Tensor
from torch.distributions import Beta, Categorical, Normal, kl_divergence  # noqa: F401 (for the examples)

TITLE = "Statistics, distributions, sampling"
TITLE_ZH = "统计学方法、分布函数、随机抽样"
LESSONS = {
    "3-14": "Pytorch与统计学方法",
    "3-15": "Pytorch与分布函数",
    "3-16": "Pytorch与随机抽样",
}
FORMULAS = {
    "standardise": r"z = \frac{x - \bar x}{s}",
    "normal_density": r"p(x) = \frac{1}{\sigma \sqrt{2 \pi}} \, e^{-\frac{(x-\mu)^2}{2 \sigma^2}}",
    "kl_normal": r"D(p \,\|\, q) = \log \frac{\sigma_q}{\sigma_p} "
    r"+ \frac{\sigma_p^2 + (\mu_p - \mu_q)^2}{2 \sigma_q^2} - \frac{1}{2}",
    "score_function_gradient": r"\nabla_\mu E[f(x)] = E[f(x) \, \nabla_\mu \log p(x)]",
}


def standardise(x: Tensor) -> Tensor:
    """Columns in centimetres and in euros train badly together: bring them to one scale. (3-14)

    Mean 0 and standard deviation 1 in each column, `(N, D) -> (N, D)`.

    >>> a = torch.tensor([[1.0, 8.0], [3.0, 4.0]])
    >>> torch.mean(a), torch.sum(a), torch.prod(a)
    (tensor(4.), tensor(16.), tensor(96.))

    With `dim`, that dimension is the one that disappears:

    >>> torch.mean(a, dim=0), torch.sum(a, dim=1), torch.prod(a, dim=0)
    (tensor([2., 6.]), tensor([9., 7.]), tensor([ 3., 32.]))
    >>> torch.argmax(a, dim=0), torch.argmin(a, dim=0), torch.argmax(a)
    (tensor([1, 0]), tensor([0, 1]), tensor(1))

    Standard deviation (标准差) and variance (方差) divide by N - 1, unless `correction=0` says N:

    >>> torch.std(a), torch.var(a), torch.var(a, correction=0)
    (tensor(2.9439), tensor(8.6667), tensor(6.5000))
    >>> standardise(torch.tensor([[170.0, 60.0], [180.0, 80.0], [190.0, 100.0]]))
    tensor([[-1., -1.],
            [ 0.,  0.],
            [ 1.,  1.]])

    The median (中位数) of an even count is the lower of the two in the middle; mode (众数) is the commonest value.

    >>> torch.median(torch.tensor([1.0, 2.0, 3.0, 100.0]))
    tensor(2.)
    >>> torch.mode(torch.tensor([4, 7, 7, 1, 4, 7]))
    torch.return_types.mode(
    values=tensor(7),
    indices=tensor(5))
    >>> type(torch.mode(torch.tensor([4, 7, 7]))) is torch.return_types.mode
    True
    """
    return (x - x.mean(dim=0)) / x.std(dim=0)


def histogram(values: Tensor, bins: int) -> Tensor:
    """A mean hides much; counts in bins show outliers, gaps and a second peak. (3-14)

    Counts in equal bins from the least to the greatest value, `(N,) -> (bins,)`.

    >>> values = torch.tensor([0.0, 1.0, 1.5, 2.0, 6.0])
    >>> histogram(values, bins=3)
    tensor([3., 1., 1.])
    >>> torch.histc(values, bins=3, min=0, max=6)
    tensor([3., 1., 1.])

    `bincount` counts whole numbers: element i says how often i stands there. Only for one dimension.

    >>> torch.bincount(torch.tensor([6, 7, 1, 6, 8]))
    tensor([0, 1, 0, 0, 0, 0, 2, 1, 1])
    >>> torch.bincount(torch.tensor([0, 1, 1]), weights=torch.tensor([0.5, 1.0, 2.0]))
    tensor([0.5000, 3.0000])
    """
    low, high = values.min(), values.max()
    index = ((values - low) / (high - low) * bins).long().clamp(max=bins - 1)  # the greatest belongs to the last bin
    return torch.bincount(index, minlength=bins).to(values.dtype)


def normal_density(x: Tensor, mean: float, std: float) -> Tensor:
    """Noise, first weights and many losses are described by a distribution: know its formula. (3-15)

    The normal distribution (正态分布): density at x, `(N,) -> (N,)`.

    >>> x = torch.tensor([-1.0, 0.0, 1.0])
    >>> normal_density(x, mean=0.0, std=1.0)
    tensor([0.2420, 0.3989, 0.2420])
    >>> Normal(0.0, 1.0).log_prob(x).exp()
    tensor([0.2420, 0.3989, 0.2420])

    A distribution object samples, gives densities, and knows its own mean. Beta lives on (0, 1), the place for an
    unknown probability: after 7 heads and 3 tails, and Beta(1, 1) before the first throw,

    >>> belief = Beta(torch.tensor(1.0 + 7), torch.tensor(1.0 + 3))
    >>> belief.mean, belief.stddev
    (tensor(0.6667), tensor(0.1307))
    """
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def kl_normal(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """How far is what a model believes from what is true? A number for that is a loss to train with. (3-15)

    KL divergence (KL 散度) of two normal distributions: what it costs to take q for p.

    KL(p || q) = log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2, in nats (Kullback and Leibler, 1951).

    >>> p, q = (torch.tensor(0.0), torch.tensor(1.0)), (torch.tensor(1.0), torch.tensor(2.0))
    >>> kl_normal(*p, *q), kl_divergence(Normal(*p), Normal(*q))
    (tensor(0.4431), tensor(0.4431))

    It is 0 only where the two agree, and it is no distance: the other way round it differs.

    >>> kl_normal(*p, *p), kl_normal(*q, *p)
    (tensor(0.), tensor(1.3069))
    """
    return torch.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5


def score_function_gradient(mean: float, samples: int, seed: int) -> Tensor:
    """A reward cannot be differentiated, and a choice neither; yet both can be learned from. (3-15)

    d/dm of E[x^2], x ~ N(m, 1), by the score function: the mean of x^2 * d/dm log p(x).

    The score-function estimator (得分函数, Williams 1992, "REINFORCE") needs no derivative of what is averaged: it also
    works for rewards and for discrete choices. The truth is 2m; `(samples,)` single estimates come back.

    >>> estimates = score_function_gradient(mean=1.5, samples=100_000, seed=0)
    >>> print(f"mean {estimates.mean():.2f}, truth {2 * 1.5}, standard deviation of one estimate {estimates.std():.1f}")
    mean 2.99, truth 3.0, standard deviation of one estimate 7.2

    A discrete choice, differentiated with a distribution's `log_prob`:

    >>> logits = torch.zeros(3, requires_grad=True)
    >>> reward = torch.tensor([0.0, 0.0, 3.0])
    >>> choice = Categorical(logits=logits)
    >>> action = choice.sample((20_000,))
    >>> (choice.log_prob(action) * reward[action]).mean().backward()
    >>> logits.grad.argmax().item(), logits.grad.sum().abs().item() < 1e-4
    (2, True)
    """
    x = mean + torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return x**2 * (x - mean)  # d/dm log N(x; m, 1) = x - m


def pathwise_gradient(mean: float, samples: int, seed: int) -> Tensor:
    """Where the average can be differentiated, the gradient of a random sample has far less noise. (3-15)

    The same derivative by the pathwise estimator: write x = m + noise and differentiate through it.

    The pathwise derivative (Kingma and Welling 2014, "reparametrisation") uses the derivative of x^2, and is far less
    noisy with the same samples. `rsample` of a distribution does it.

    >>> estimates = pathwise_gradient(mean=1.5, samples=100_000, seed=0)
    >>> print(f"mean {estimates.mean():.2f}, truth {2 * 1.5}, standard deviation of one estimate {estimates.std():.1f}")
    mean 3.00, truth 3.0, standard deviation of one estimate 2.0
    >>> mean = torch.tensor(1.5, requires_grad=True)
    >>> Normal(mean, 1.0).rsample((100_000,)).square().mean().backward()
    >>> print(f"{mean.grad:.1f}")
    3.0
    """
    x = mean + torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 2 * x


def sample_twice(seed: int | None) -> tuple[Tensor, Tensor]:
    """A result that nobody can repeat is worth little: fix the random numbers. (3-16)

    The seed (随机种子) fixes the whole sequence of random numbers that follows.

    >>> first, second = sample_twice(seed=1)
    >>> torch.equal(first, second)
    True
    >>> first, second = sample_twice(seed=None)
    >>> torch.equal(first, second)
    False

    `torch.manual_seed` seeds the generator that everybody shares; a `torch.Generator` is one of your own, which
    nobody else can disturb.

    >>> torch.manual_seed(1).initial_seed()
    1
    >>> own = torch.Generator().manual_seed(1)
    >>> torch.equal(torch.rand(3), torch.rand(3, generator=own))
    True

    Draws with given weights, without and with putting back (what weighs 0 never comes); and yes or no with given
    probabilities:

    >>> weights = torch.tensor([0.0, 10.0, 3.0, 0.0])
    >>> torch.multinomial(weights, 2).sort().values
    tensor([1, 2])
    >>> torch.multinomial(weights, 10_000, replacement=True).bincount(minlength=4)[[0, 3]]
    tensor([0, 0])
    >>> torch.bernoulli(torch.tensor([0.0, 1.0, 1.0]))
    tensor([0., 1., 1.])
    """
    draws = []
    for _ in range(2):
        if seed is not None:
            torch.manual_seed(seed)
        draws.append(torch.normal(torch.rand(1, 2), torch.rand(1, 2)))
    return draws[0], draws[1]
