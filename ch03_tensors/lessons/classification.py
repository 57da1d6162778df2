"""What comes with image classification: F1, pictures turned and sheared, few examples, fine differences.

python -m lessons classification
python -m lessons adversarial              (the next one)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TITLE = "F1, geometric augmentation, few-shot and fine-grained classification"
TITLE_ZH = "F1、几何增强、小样本与细粒度分类"
LESSONS = {
    "6-2": "图像分类网络模型框架解读（下）",
    "6-16": "分类问题优化思路",
    "6-17": "分类问题最新研究进展和方向",
}
FORMULAS = {
    "precision_recall_f1": r"P = \frac{TP}{TP + FP}, \quad R = \frac{TP}{TP + FN}, \quad F_1 = \frac{2 P R}{P + R}",
    "affine_matrix": r"\begin{pmatrix} \cos \theta & -\sin \theta \\ \sin \theta & \cos \theta \end{pmatrix}"
    r"\begin{pmatrix} s & h s \\ 0 & s \end{pmatrix}",
    "bilinear_pool": r"\frac{1}{H W} \sum_{i} x_i x_i^T",
}


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Accuracy says how often the model is wrong; this says what it takes for what. (6-2)

    The confusion matrix (混淆矩阵): row = true class, column = answer. `(N,), (N,) -> (K, K)`.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    >>> answers = torch.tensor([0, 0, 0, 1, 1, 1, 0, 2])
    >>> confusion_matrix(answers, labels, 3)
    tensor([[3, 1, 0],
            [0, 2, 0],
            [1, 0, 1]])
    """
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def precision_recall_f1(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """If 99 of 100 patients are healthy, `healthy` is 99 % accurate and finds nobody: ask two questions instead. (6-2)

    Precision (精确率): of those called k, how many are k? Recall (召回率): of those that are k, how many were found? F1 is
    their harmonic mean, which is small if either is. `(K, K) -> (K,), (K,), (K,)`; 0 where nothing is counted.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    >>> answers = torch.tensor([0, 0, 0, 1, 1, 1, 0, 2])
    >>> for scores in precision_recall_f1(confusion_matrix(answers, labels, 3)):
    ...     print([round(score, 3) for score in scores.tolist()])
    [0.75, 0.667, 1.0]
    [0.75, 1.0, 0.5]
    [0.75, 0.8, 0.667]

    Their mean over the classes is macro F1 (宏平均), in which a rare class counts as much as a common one. Over all samples
    together (micro) it is just accuracy. scikit-learn:

    >>> from sklearn.metrics import f1_score
    >>> round(f1_score(labels, answers, average="macro"), 3), f1_score(labels, answers, average="micro")
    (0.739, 0.75)
    >>> round(precision_recall_f1(confusion_matrix(answers, labels, 3))[2].mean().item(), 3)
    0.739

    The 99 healthy and one ill patient, all called healthy:

    >>> [scores.tolist()[1] for scores in precision_recall_f1(torch.tensor([[99, 0], [1, 0]]))]
    [0.0, 0.0, 0.0]
    """
    right = confusion.diagonal().double()
    precision = right / confusion.sum(dim=0).clamp(min=1)
    recall = right / confusion.sum(dim=1).clamp(min=1)
    return precision, recall, 2 * precision * recall / (precision + recall).clamp(min=1e-12)


def affine_matrix(degrees: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Tensor:
    """A traffic sign hangs crooked, far away, or is seen from the side: make such pictures from the straight ones. (6-16)

    Rotation (旋转), scaling (缩放) and shear (剪切) are one 2 x 2 matrix: what happens to a point (x, y) measured from the
    middle. `-> (2, 2)`, the rotation with the clock, as y points down.

    >>> affine_matrix(degrees=90).round().tolist(), affine_matrix(scale=2, shear=0.5).tolist()
    ([[0.0, -1.0], [1.0, 0.0]], [[2.0, 1.0], [0.0, 2.0]])
    """
    turn = math.radians(degrees)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return rotation @ torch.tensor([[scale, shear * scale], [0.0, scale]])


def warp(image: Tensor, matrix: Tensor) -> Tensor:
    """The matrix says where a point goes; a picture needs the opposite: for each new pixel, where it came from. (6-16)

    Every pixel of the result asks the inverse matrix for its place in the image, and takes a mixture of the four pixels
    around it (bilinear); outside is black. `(C, H, W), (2, 2) -> (C, H, W)`, float, H = W.

    >>> image = torch.arange(16.0).view(1, 4, 4)
    >>> warp(image, affine_matrix(degrees=90))[0].round()
    tensor([[12.,  8.,  4.,  0.],
            [13.,  9.,  5.,  1.],
            [14., 10.,  6.,  2.],
            [15., 11.,  7.,  3.]])

    Half the size; and a shear, which moves the upper rows to the left and the lower ones to the right:

    >>> warp(torch.ones(1, 4, 4), affine_matrix(scale=0.5))[0]
    tensor([[0., 0., 0., 0.],
            [0., 1., 1., 0.],
            [0., 1., 1., 0.],
            [0., 0., 0., 0.]])
    >>> warp(torch.ones(1, 4, 4), affine_matrix(shear=1.0))[0].round(decimals=1)
    tensor([[1.0000, 1.0000, 0.5000, 0.0000],
            [1.0000, 1.0000, 1.0000, 0.5000],
            [0.5000, 1.0000, 1.0000, 1.0000],
            [0.0000, 0.5000, 1.0000, 1.0000]])

    In training, angle, scale and shear are drawn for each picture; torchvision has it as `v2.RandomAffine`. Only what
    leaves the label true may be done: a 6 turned round is a 9.
    """
    theta = torch.cat([torch.linalg.inv(matrix), torch.zeros(2, 1)], dim=1)  # (2, 3), no shift
    grid = F.affine_grid(theta.unsqueeze(0), [1, *image.shape], align_corners=False)
    return F.grid_sample(image.unsqueeze(0), grid, mode="bilinear", align_corners=False)[0]


def few_shot(support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Somebody shows you five pictures of a rare bird: a network cannot be trained on that, but can compare. (6-17)

    Few-shot learning (小样本学习): a network that was trained on other classes turns pictures into vectors; a new class is
    the mean of its few vectors, its prototype, and a picture belongs to the nearest (Snell et al., 2017). Nothing is
    trained for the new classes. `(N, D), (N,), (M, D) -> (M,)`.

    Two new classes, three examples each, in 16 dimensions of which two tell them apart:

    >>> generator = torch.Generator().manual_seed(0)
    >>> centres = torch.zeros(2, 16)
    >>> centres[0, 0], centres[1, 1] = 4.0, 4.0
    >>> support = centres.repeat_interleave(3, dim=0) + torch.randn(6, 16, generator=generator)
    >>> queries = centres.repeat_interleave(50, dim=0) + torch.randn(100, 16, generator=generator)
    >>> answers = few_shot(support, torch.tensor([0, 0, 0, 1, 1, 1]), queries)
    >>> (answers == torch.arange(2).repeat_interleave(50)).float().mean()
    tensor(0.9900)
    """
    classes = labels.unique()
    prototypes = torch.stack([support[labels == k].mean(dim=0) for k in classes])
    return classes[torch.cdist(queries, prototypes).argmin(dim=1)]


def bilinear_pool(x: Tensor) -> Tensor:
    """Two hundred kinds of birds have the same parts: what differs is which colour sits beside which pattern. (6-17)

    Fine-grained classification (细粒度分类) asks for such pairs. Bilinear pooling (Lin et al., 2015) multiplies every channel
    with every other at each place and takes the mean: how often the two occur together. A mean alone forgets that.
    `(N, C, H, W) -> (N, C * C)`.

    Two images with the same mean of each channel. In the first, channel 0 and 1 are strong at the same place, in the
    second at different places:

    >>> together = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    >>> apart = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> both = torch.stack([together, apart])
    >>> both.mean((2, 3)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    >>> bilinear_pool(both).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.0, 0.0, 0.5]]
    """
    n, channels, height, width = x.shape
    flat = x.reshape(n, channels, height * width)
    return (flat @ flat.transpose(1, 2) / (height * width)).flatten(1)
