"""Samples and batches: a data set and its loader by hand, then torch's.

python -m lessons loading
python -m lessons images                   (the next one)
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate  # noqa: F401 (for the examples)

TITLE = "Data sets and loaders"
TITLE_ZH = "Dataset 与 DataLoader"
LESSONS = {
    "4-5": "利用神经网络解决分类和回归问题3",
    "4-6": "利用神经网络解决分类和回归问题4",
}


class Squares(Dataset):
    """A training loop should not know where samples come from: give it two questions to ask. (4-5)

    A data set is anything that answers `len(data)` and `data[i]`. This one makes its samples: i and i^2. A real one would
    open file number i here, so that a large set need not fit into memory.

    >>> data = Squares(5)
    >>> len(data), data[3]
    (5, (tensor(3.), tensor(9.)))
    """

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.tensor(float(i)), torch.tensor(float(i * i))


def collate(samples: list) -> object:
    """Networks take batches, data sets give single samples: put them together. (4-5)

    Tensors are stacked, numbers become a tensor, tuples and dicts are gone into. N samples `-> the same with (N, ..)`.

    >>> samples = [(torch.zeros(2), 7), (torch.ones(2), 8)]
    >>> collate(samples)
    (tensor([[0., 0.],
            [1., 1.]]), tensor([7, 8]))

    torch's does the same, and knows more types:

    >>> default_collate([{"x": torch.zeros(2), "y": 1}, {"x": torch.ones(2), "y": 2}])["y"]
    tensor([1, 2])
    """
    first = samples[0]
    if isinstance(first, tuple):
        return tuple(collate(list(column)) for column in zip(*samples, strict=True))
    if isinstance(first, dict):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    return torch.stack(samples) if torch.is_tensor(first) else torch.tensor(samples)


class Loader:
    """Each epoch needs all samples once, in a new order, in batches: the loop should get them without asking. (4-5)

    A DataLoader in its essence: draw an order, cut it into batches, fetch and collate. `for x, y in loader`.

    >>> for x, y in Loader(Squares(5), batch_size=2):
    ...     print(x, y)
    tensor([0., 1.]) tensor([0., 1.])
    tensor([2., 3.]) tensor([4., 9.])
    tensor([4.]) tensor([16.])

    Shuffled, every sample still comes exactly once, and each epoch has an order of its own:

    >>> loader = Loader(Squares(100), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0))
    >>> first, second = (torch.cat([x for x, _ in loader]) for _ in range(2))
    >>> torch.equal(first.sort().values, torch.arange(100.0)), torch.equal(first, second)
    (True, False)

    `drop_last` leaves out a last batch that is not full, which BatchNorm with one sample could not stand:

    >>> [len(x) for x, _ in Loader(Squares(5), batch_size=2, drop_last=True)]
    [2, 2]
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        collate_fn: Callable = collate,
        generator: torch.Generator | None = None,
    ):
        self.data, self.batch_size, self.shuffle, self.drop_last = data, batch_size, shuffle, drop_last
        self.collate_fn, self.generator = collate_fn, generator

    def __len__(self) -> int:
        full, rest = divmod(len(self.data), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator:
        count = len(self.data)
        order = torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield self.collate_fn([self.data[int(i)] for i in batch])


def padded(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences differ in length and cannot be stacked: say how a batch is to be made of them. (4-6)

    `torch.utils.data.DataLoader` is the loader to use: the same words as above, and `num_workers` processes that prepare
    batches ahead, `pin_memory` for faster copies to a GPU, `sampler` for an order of your own. `collate_fn` is the place
    for anything that stacking cannot do; here it pads, and gives the lengths too.

    N samples `((T_i,), label) -> (N, longest), lengths (N,), labels (N,)`.

    >>> sentences = [(torch.tensor([5, 6, 7]), 0), (torch.tensor([8]), 1), (torch.tensor([9, 9]), 0)]
    >>> for words, lengths, labels in DataLoader(sentences, batch_size=2, collate_fn=padded):
    ...     print(words.tolist(), lengths.tolist(), labels.tolist())
    [[5, 6, 7], [8, 0, 0]] [3, 1] [0, 1]
    [[9, 9]] [2] [0]

    Without shuffling, torch's loader and ours give the same batches:

    >>> ours, theirs = Loader(Squares(7), batch_size=3), DataLoader(Squares(7), batch_size=3)
    >>> all(torch.equal(a, b) for mine, other in zip(ours, theirs) for a, b in zip(mine, other)), len(ours), len(theirs)
    (True, 3, 3)
    """
    words, labels = zip(*samples, strict=True)
    lengths = torch.tensor([len(sequence) for sequence in words])
    return torch.nn.utils.rnn.pad_sequence(words, batch_first=True), lengths, torch.tensor(labels)
