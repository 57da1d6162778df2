"""PCA and LDA against scikit-learn, and the factorisations against their definitions, on random data."""

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.nn.functional import normalize

from lessons import linalg, statistics


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (120,), generator=generator)
    centres = 3 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    stretch = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(120, 6, generator=generator, dtype=torch.float64) @ stretch, labels


@pytest.mark.parametrize("k", [1, 3, 6])
def test_pca_is_that_of_scikit_learn(data, k):
    x, _ = data
    directions, variances = linalg.pca(x, k)
    reference = PCA(n_components=k).fit(x.numpy())
    assert torch.allclose(variances, torch.from_numpy(reference.explained_variance_), atol=1e-10)
    overlap = directions @ torch.from_numpy(reference.components_).T
    assert torch.allclose(overlap.abs(), torch.eye(k, dtype=torch.float64), atol=1e-9)


def test_lda_is_that_of_scikit_learn(data):
    x, labels = data
    ours = linalg.lda(x, labels)
    theirs = torch.from_numpy(LinearDiscriminantAnalysis(solver="svd").fit(x.numpy(), labels.numpy()).scalings_)
    overlap = normalize(ours, dim=0) * normalize(theirs, dim=0)
    assert ours.shape == (6, 3) and torch.allclose(overlap.sum(0).abs(), torch.ones(3).double(), atol=1e-9)


def test_lda_takes_any_labels(data):
    x, labels = data
    assert torch.allclose(linalg.lda(x, labels), linalg.lda(x, labels * 10 + 5))


def test_solvers(data):
    x, _ = data
    b = torch.arange(6).double()
    assert torch.allclose(linalg.solve_by_lu(x[:6], b), torch.linalg.solve(x[:6], b))
    y = x[:, 0] + 1
    assert torch.allclose(linalg.least_squares_by_qr(x, y), torch.linalg.lstsq(x, y.unsqueeze(1)).solution[:, 0])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_low_rank_is_the_best_of_its_rank(data, rank):
    x, _ = data
    close = linalg.low_rank(x, rank)
    assert torch.linalg.matrix_rank(close) == rank
    assert torch.isclose(torch.linalg.matrix_norm(x - close, 2), torch.linalg.svdvals(x)[rank])


def test_the_two_estimators_agree_and_the_pathwise_one_is_less_noisy():
    score = statistics.score_function_gradient(0.7, 200_000, seed=1)
    path = statistics.pathwise_gradient(0.7, 200_000, seed=1)
    assert abs(score.mean() - 1.4) < 0.05 and abs(path.mean() - 1.4) < 0.02 and score.std() > 2 * path.std()


def test_kl_divergence_is_what_sampling_gives():
    p, q = torch.distributions.Normal(0.3, 0.8), torch.distributions.Normal(-0.5, 1.3)
    x = p.sample((400_000,))
    sampled = (p.log_prob(x) - q.log_prob(x)).mean()
    assert abs(statistics.kl_normal(p.mean, p.stddev, q.mean, q.stddev) - sampled) < 0.01
