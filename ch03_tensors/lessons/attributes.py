"""What a tensor knows about itself: type, device, layout; dense and sparse, full rank and low rank.

python -m lessons attributes
python -m lessons arithmetic       (the next one)
"""

import torch
from torch import Tensor

TITLE = "Attributes of a tensor"
TITLE_ZH = "Tensor 的属性"
LESSONS = {"3-5": "Tensor的属性 张量", "3-6": "Tensor的属性-稀疏的张量的编程实践"}


def attributes(tensor: Tensor) -> dict:
    """Two tensors only work together if type, device and shape fit: ask each for them. (3-5)

    One type (dtype) for all elements, one device where they lie, one layout of how they lie.

    >>> for name, value in attributes(torch.ones(2, 3)).items():
    ...     print(name, value)
    shape torch.Size([2, 3])
    dtype torch.float32
    device cpu
    layout torch.strided
    requires_grad False
    >>> attributes(torch.tensor([1, 2]))["dtype"], attributes(torch.tensor([True]))["dtype"]
    (torch.int64, torch.bool)

    Types convert with `.to`. A mix of two types is computed in the higher category (bool, int, float, complex), whatever
    the widths; only within a category the wider type wins.

    >>> torch.tensor([1.7, -1.7]).to(torch.int32)
    tensor([ 1, -1], dtype=torch.int32)
    >>> (torch.ones(2, dtype=torch.float32) + torch.ones(2, dtype=torch.float64)).dtype
    torch.float64
    >>> (torch.ones(2, dtype=torch.int64) + torch.ones(2, dtype=torch.float16)).dtype
    torch.float16

    The stride says how many elements to jump for one step along each dimension. A transpose only swaps the strides:
    no element moves.

    >>> a = torch.arange(6).reshape(2, 3)
    >>> a.stride(), a.t().stride(), a.t().is_contiguous()
    ((3, 1), (1, 3), False)
    >>> a.t().data_ptr() == a.data_ptr()
    True
    """
    names = ("shape", "dtype", "device", "layout", "requires_grad")
    return {name: getattr(tensor, name) for name in names}


def bits_of(value: float, dtype: torch.dtype) -> str:
    """Half the memory and, on many machines, several times the speed: why does everybody train in bf16? (3-5)

    A float's bits: sign, exponent, fraction; the number is 1.fraction * 2^(exponent - bias). `-> "s eeee ffff"`.

    bf16 (bfloat16) is float32 without its last 16 bits: the same exponent, and 7 bits of the fraction in the place of 23.
    float16 has a fraction of 10 bits and an exponent of 5.

    >>> for dtype in (torch.float32, torch.bfloat16, torch.float16):
    ...     print(f"{str(dtype)[6:]:<9}", bits_of(0.15625, dtype))
    float32   0 01111100 01000000000000000000000
    bfloat16  0 01111100 0100000
    float16   0 01100 0100000000

    The exponent decides how large and small a number may be. float16 ends at 65,504 and loses small gradients (so that
    the loss has to be scaled up, GradScaler); bf16 reaches as far as float32.

    >>> a = torch.tensor([1e5, 1e-9])
    >>> a.to(torch.float16).tolist(), [f"{x:.0e}" for x in a.to(torch.bfloat16).tolist()]
    ([inf, 0.0], ['1e+05', '1e-09'])

    The fraction decides how finely: bf16 has 2 to 3 decimal digits. A small step added to a weight may change nothing.

    >>> one = torch.ones(1, dtype=torch.bfloat16)
    >>> (one + 1 / 128).item(), (one + 1 / 512).item(), (torch.ones(1) + 1 / 512).item()
    (1.0078125, 1.0, 1.001953125)

    So the weights, their sums and the loss stay in float32, and only the products of matrices are computed in bf16, whose
    rounding errors of at most 1 in 256 average out in long sums. `torch.autocast` chooses for each operation:

    >>> layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     y = layer(x)
    ...     loss = torch.nn.functional.cross_entropy(y, torch.tensor([0, 1]))
    >>> layer.weight.dtype, y.dtype, loss.dtype
    (torch.float32, torch.bfloat16, torch.float32)
    """
    whole = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}[dtype]
    width, exponent = 8 * dtype.itemsize, 5 if dtype == torch.float16 else 8
    number = torch.tensor(value, dtype=dtype).view(whole).item() % 2**width
    bits = f"{number:0{width}b}"
    return f"{bits[0]} {bits[1 : 1 + exponent]} {bits[1 + exponent :]}"


def best_device() -> torch.device:
    """The same program should run on a laptop and on a GPU: name the device in one place. (3-6)

    A device is a name; a tensor is made there, or moved there with `.to`.

    >>> cpu = torch.device("cpu")
    >>> torch.tensor([2, 2], dtype=torch.float32, device=cpu)
    tensor([2., 2.])
    >>> torch.device("cuda:0").type, torch.device("cuda:0").index
    ('cuda', 0)
    >>> best_device().type in ("cpu", "cuda", "mps")
    True

    An operation needs all its tensors on one device: `a.to(b.device) + b`.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def sparse_diagonal(values: Tensor, size: int) -> Tensor:
    """A table of users and films, or of words in texts, is nearly all zeros: do not store those. (3-6)

    A sparse (稀疏) COO tensor stores only coordinates and values of what is not zero.

    `(K,) values -> (size, size)`, with the values at (0, 0), (1, 1), ...

    >>> a = sparse_diagonal(torch.tensor([1, 2, 3]), size=4)
    >>> a.layout == torch.sparse_coo, a._nnz(), a.shape
    (True, 3, torch.Size([4, 4]))
    >>> a.coalesce().indices()
    tensor([[0, 1, 2],
            [0, 1, 2]])
    >>> a.to_dense()
    tensor([[1, 0, 0, 0],
            [0, 2, 0, 0],
            [0, 0, 3, 0],
            [0, 0, 0, 0]])

    It pays where nearly all is zero: a million by a million with three values in it is no problem, and a product
    with a dense matrix only touches the three.

    >>> big = sparse_diagonal(torch.tensor([1.0, 2.0, 3.0]), size=1_000_000)
    >>> torch.sparse.mm(big, torch.ones(1_000_000, 1))[:5, 0]
    tensor([1., 2., 3., 0., 0.])

    Two entries at the same place add up:

    >>> torch.sparse_coo_tensor([[0, 0], [1, 1]], [5.0, 6.0], (2, 2), check_invariants=True).to_dense()
    tensor([[ 0., 11.],
            [ 0.,  0.]])
    """
    diagonal = torch.arange(len(values))
    # check_invariants: coordinates outside the size are an error here, and not a crash later
    return torch.sparse_coo_tensor(torch.stack([diagonal, diagonal]), values, (size, size), check_invariants=True)


def rank_one(column: Tensor, row: Tensor) -> Tensor:
    """A large matrix that follows a simple pattern can be stored and multiplied cheaply. (3-5)

    Low rank (低秩) is the other way to be small: m x n numbers made from m + n. `(M,), (N,) -> (M, N)`.

    >>> table = rank_one(torch.arange(1.0, 4), torch.arange(1.0, 5))
    >>> table
    tensor([[ 1.,  2.,  3.,  4.],
            [ 2.,  4.,  6.,  8.],
            [ 3.,  6.,  9., 12.]])
    >>> torch.linalg.matrix_rank(table), table.count_nonzero()
    (tensor(1), tensor(12))
    """
    return torch.outer(column, row)
