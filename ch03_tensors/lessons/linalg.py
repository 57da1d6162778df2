"""Norms, the four matrix factorisations, and what two of them are good for: PCA and LDA.

    python -m lessons linalg           (with a picture)
    python -m lessons indexing         (the next one)

PCA and LDA are shown on iris (Fisher 1936: 150 flowers, 4 lengths in cm, 3 species), which scikit-learn carries.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize  # noqa: F401 (for the examples)

TITLE = "Norms, factorisations, PCA and LDA"
TITLE_ZH = "范数、矩阵分解、PCA 与 LDA"
LESSONS = {
    "3-17": "Pytorch与线性代数运算",
    "3-18": "Pytorch与矩阵分解-PCA",
    "3-19": "Pytorch与矩阵分解-SVD分解-LDA",
}
FORMULAS = {
    "p_norm": r"\|a\|_p = \left( \sum_i |a_i|^p \right)^{1/p}",
    "solve_by_lu": r"A = P L U",
    "least_squares_by_qr": r"A = Q R, \quad R x = Q^T b",
    "pca": r"\frac{1}{N-1} X^T X = V \, \mathrm{diag}(w) \, V^T",
    "low_rank": r"A = U \, \mathrm{diag}(s) \, V^T \approx \sum_{i=1}^{k} s_i u_i v_i^T",
}
FIGURES = {"lda": "draw_planes"}


def p_norm(a: Tensor, p: float) -> Tensor:
    """How large is a vector, an error, a gradient? Weight decay and clipping need one number for it. (3-17)

    The norm (范数) of all elements, (sum |a_i|^p)^(1/p); p = 0 counts what is not zero.

    >>> a = torch.tensor([3.0, 0.0, -4.0])
    >>> [round(p_norm(a, p).item(), 4) for p in (0, 1, 2, 3)]
    [2.0, 7.0, 5.0, 4.4979]
    >>> [round(torch.linalg.vector_norm(a, p).item(), 4) for p in (0, 1, 2, 3, torch.inf)]
    [2.0, 7.0, 5.0, 4.4979, 4.0]

    The course's `torch.norm` still works, but its documentation sends you to `torch.linalg`, where vectors and
    matrices have norms of their own names. `torch.dist` is the norm of a difference.

    >>> torch.norm(a, p=1), torch.dist(a, torch.zeros(3), p=1), torch.dist(a, torch.zeros(3))
    (tensor(7.), tensor(7.), tensor(5.))

    For a matrix: Frobenius, spectral (the largest singular value), and nuclear (核范数, their sum), whose
    minimisation leads to a low rank as that of the 1-norm leads to zeros.

    >>> m = torch.diag(torch.tensor([3.0, 4.0]))
    >>> [round(torch.linalg.matrix_norm(m, kind).item(), 4) for kind in ("fro", 2, "nuc")]
    [5.0, 4.0, 7.0]
    """
    if p == 0:
        return (a != 0).sum().to(a.dtype)
    return a.abs().pow(p).sum().pow(1 / p)


def solve_by_lu(a: Tensor, b: Tensor) -> Tensor:
    """Many fits end in linear equations; solve them without inverting the matrix. (3-18)

    LU: A = P L U, with triangular L and U, so that A x = b is two easy substitutions. `(N, N), (N,) -> (N,)`.

    >>> a, b = torch.tensor([[2.0, 1.0], [4.0, 5.0]]), torch.tensor([4.0, 14.0])
    >>> p, lower, upper = torch.linalg.lu(a)
    >>> lower, upper
    (tensor([[1.0000, 0.0000],
            [0.5000, 1.0000]]), tensor([[ 4.0000,  5.0000],
            [ 0.0000, -1.5000]]))
    >>> torch.equal(p @ lower @ upper, a)
    True
    >>> solve_by_lu(a, b), torch.linalg.solve(a, b)
    (tensor([1., 2.]), tensor([1., 2.]))

    A must have full rank (满秩), or there is no single solution:

    >>> torch.linalg.det(torch.tensor([[1.0, 2.0], [2.0, 4.0]])).item()
    -0.0
    """
    p, lower, upper = torch.linalg.lu(a)
    y = torch.linalg.solve_triangular(lower, (p.T @ b).unsqueeze(1), upper=False)
    return torch.linalg.solve_triangular(upper, y, upper=True).squeeze(1)


def least_squares_by_qr(a: Tensor, b: Tensor) -> Tensor:
    """With more equations than unknowns nothing fits exactly: find what fits best, and stably. (3-18)

    QR: A = Q R, Q with orthonormal columns, R triangular; least squares is R x = Q^T b.

    `(M, N), (M,) -> (N,)`.

    >>> a = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    >>> q, r = torch.linalg.qr(a)
    >>> torch.allclose(q.T @ q, torch.eye(2), atol=1e-6), torch.allclose(q @ r, a, atol=1e-6), r[1, 0].item()
    (True, True, 0.0)
    >>> least_squares_by_qr(a, torch.tensor([3.0, 5.0, 7.0])).round(decimals=4)
    tensor([2., 1.])
    """
    q, r = torch.linalg.qr(a)
    return torch.linalg.solve_triangular(r, (q.T @ b).unsqueeze(1), upper=True).squeeze(1)


def pca(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A hundred columns that say nearly the same can be looked at in two. (3-18)

    PCA by eigenvalues (EVD): the k directions of greatest variance.

    `(N, D) -> (k, D) directions, (k,) variances`. A symmetric matrix is V diag(w) V^T (特征值分解). Of the covariance
    matrix, the eigenvectors are the principal components (主成分, Pearson 1901) and the eigenvalues the variances
    along them.

    >>> w, v = torch.linalg.eigh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> w
    tensor([1., 3.])
    >>> torch.allclose(v @ torch.diag(w) @ v.T, torch.tensor([[2.0, 1.0], [1.0, 2.0]]), atol=1e-6)
    True

    >>> x, species = iris()
    >>> directions, variances = pca(x, k=2)
    >>> variances
    tensor([4.2282, 0.2427], dtype=torch.float64)

    scikit-learn finds the same, up to the sign, which nothing fixes:

    >>> from sklearn.decomposition import PCA
    >>> reference = PCA(n_components=2).fit(x.numpy())
    >>> torch.allclose(variances, torch.from_numpy(reference.explained_variance_))
    True
    >>> torch.allclose(directions.abs(), torch.from_numpy(reference.components_).abs())
    True
    """
    centred = x - x.mean(dim=0)
    variances, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))  # in ascending order
    return vectors.T.flip(0)[:k], variances.flip(0)[:k]


def low_rank(a: Tensor, rank: int) -> Tensor:
    """Images, ratings and weights can be stored with a fraction of their numbers. (3-19)

    SVD: A = U diag(s) V^T exists for every matrix; its first terms are the best of their rank.

    `(M, N) -> (M, N)`. Singular values (奇异值) come in descending order (Eckart and Young 1936 on the best
    approximation).

    >>> a = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.1]])
    >>> u, s, vt = torch.linalg.svd(a, full_matrices=False)
    >>> s
    tensor([8.4386, 0.0265])
    >>> low_rank(a, 1)
    tensor([[0.9914, 1.9829, 3.0141],
            [2.0042, 4.0085, 6.0930]])

    The error is the first singular value left out:

    >>> torch.linalg.matrix_norm(a - low_rank(a, 1), 2)
    tensor(0.0265)
    """
    u, s, vt = torch.linalg.svd(a, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def lda(x: Tensor, labels: Tensor) -> Tensor:
    """If the classes are known, look from the side from which they are furthest apart. (3-19)

    LDA by two SVDs: the directions that set K classes apart best. `(N, D), (N,) -> (D, K - 1)`.

    Linear discriminant analysis (线性判别分析, Fisher 1936): first scale the space so that the spread within a class is
    a unit ball, then find the directions along which the class means spread most. PCA sees no labels, LDA does.

    >>> x, species = iris()
    >>> directions = lda(x, species)
    >>> directions.shape
    torch.Size([4, 2])

    scikit-learn finds the same directions, up to sign and length:

    >>> from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    >>> reference = LinearDiscriminantAnalysis(solver="svd").fit(x.numpy(), species.numpy())
    >>> theirs = torch.from_numpy(reference.scalings_)
    >>> torch.allclose(normalize(directions, dim=0).abs(), normalize(theirs, dim=0).abs())
    True

    Spread of the class means over the spread within a class, along the first direction of each method:

    >>> [round(separation(x @ direction, species), 1) for direction in (pca(x, 1)[0][0], directions[:, 0])]
    [19.5, 47.3]
    """
    classes = labels.unique()
    means = torch.stack([x[labels == k].mean(dim=0) for k in classes])
    counts = torch.stack([(labels == k).sum() for k in classes])
    within = (x - means[torch.searchsorted(classes, labels)]) / (len(x) - len(classes)) ** 0.5
    _, s, vt = torch.linalg.svd(within, full_matrices=False)
    whiten = vt.T / s  # (D, D): in these coordinates the covariance within a class is the identity
    between = ((counts / (len(classes) - 1)).sqrt().unsqueeze(1) * (means - x.mean(dim=0))) @ whiten
    return whiten @ torch.linalg.svd(between, full_matrices=False).Vh[: len(classes) - 1].T


def draw_planes(folder: Path) -> Path:
    """Iris in the plane of PCA and in that of LDA, side by side."""
    from matplotlib.figure import Figure

    x, species = iris()
    x = x - x.mean(dim=0)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, (title, plane) in zip(
        figure.subplots(1, 2), (("PCA", x @ pca(x, 2)[0].T), ("LDA", x @ lda(x, species))), strict=True
    ):
        axis.scatter(*plane.T, c=species, s=12)
        axis.set(title=title)
    figure.savefig(folder / "linalg_pca_lda.png", dpi=110)
    return folder / "linalg_pca_lda.png"


def separation(values: Tensor, labels: Tensor) -> float:
    """Variance of the class means over the mean variance within a class. `(N,), (N,) -> float`.

    >>> round(separation(torch.tensor([0.0, 1.0, 10.0, 11.0]), torch.tensor([0, 0, 1, 1])), 2)
    100.0
    """
    groups = [values[labels == k] for k in labels.unique()]
    between = torch.stack([group.mean() for group in groups]).var()
    return (between / torch.stack([group.var() for group in groups]).mean()).item()


def iris() -> tuple[Tensor, Tensor]:
    """-> (150, 4) lengths in cm, float64, and (150,) species 0, 1, 2.

    >>> [tensor.shape for tensor in iris()]
    [torch.Size([150, 4]), torch.Size([150])]
    """
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return torch.from_numpy(x), torch.from_numpy(y)
