"""Everyday techniques: save and load, OpenCV in and out, the same code on CPU and GPU.

python -m lessons techniques
python -m lessons autograd         (the next one)
"""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn  # noqa: F401 (for the examples)

TITLE = "Saving, loading, OpenCV, CPU and GPU"
TITLE_ZH = "简单编程技巧：保存与加载、OpenCV、CPU 与 GPU"
LESSONS = {"3-26": "Pytorch简单编程技巧"}


def save_and_load(value: dict) -> dict:
    """A training that cannot be saved is lost with the first power cut. (3-26)

    `torch.save` writes tensors, numbers, strings, lists and dicts; `weights_only` loads nothing else.

    >>> loaded = save_and_load({"weight": torch.ones(2), "epoch": 3})
    >>> loaded
    {'weight': tensor([1., 1.]), 'epoch': 3}

    A model is saved as its state dict (the parameters by name), and loaded into a model made by the same code:

    >>> first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> second.load_state_dict(save_and_load(first.state_dict()))
    <All keys matched successfully>
    >>> torch.equal(first.weight, second.weight)
    True

    A whole object would be saved as a pickle: instructions that name the functions and classes to call at loading, not
    the code of the class, which must be there to be imported. A file from others may name any function, such as one
    that deletes files, so that is refused:

    >>> try:
    ...     save_and_load({"model": first})
    ... except Exception as error:
    ...     print(type(error).__name__)
    UnpicklingError
    """
    file = io.BytesIO()  # a path works the same way
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


def flip_image(image: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """Images come from OpenCV and go back to it; on the way they may visit a GPU. (3-26)

    An OpenCV image upside down, flipped by torch on any device, `(H, W, 3) uint8 -> (H, W, 3) uint8`.

    OpenCV's images are NumPy arrays, blue first. `.numpy()` works only on the CPU: a result from a GPU must first
    come back with `.cpu()`.

    >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> flip_image(image).tolist()
    [[[6, 7, 8], [9, 10, 11]], [[0, 1, 2], [3, 4, 5]]]
    >>> np.array_equal(flip_image(image), cv2.flip(image, 0))
    True
    >>> torch.from_numpy(image).is_cuda
    False

    The same with CUDA, where there is a GPU; without one this compares the CPU with itself:

    >>> device = "cuda" if torch.cuda.is_available() else "cpu"
    >>> np.array_equal(flip_image(image, device), cv2.flip(image, 0))
    True
    """
    tensor = torch.from_numpy(image).to(device)
    return torch.flip(tensor, dims=[0]).cpu().numpy()


def read_image(path: str | Path) -> np.ndarray:
    """A file that cannot be read should say so at once, and with its name. (3-26)

    Reads an image file as OpenCV does, `-> (H, W, 3) uint8, BGR`; a clear error if there is none.

    `cv2.imread` answers None for a file that it cannot read, and the error comes much later. A file name with
    Chinese characters works on every system if Python reads the bytes and OpenCV only decodes them.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "图.png"
    >>> _ = path.write_bytes(cv2.imencode(".png", np.full((2, 3, 3), 7, np.uint8))[1].tobytes())
    >>> read_image(path).shape
    (2, 3, 3)
    >>> _ = path.write_text("not an image")
    >>> read_image(path)
    Traceback (most recent call last):
        ...
    ValueError: 图.png is no image that OpenCV can read
    """
    image = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{Path(path).name} is no image that OpenCV can read")
    return image


def to_network_input(image: np.ndarray) -> Tensor:
    """Wrong channel order or scale is no error, only a bad result: put both right in one place. (3-26)

    OpenCV image to network input, `(H, W, 3) uint8 BGR -> (1, 3, H, W) float32 RGB in [0, 1]`.

    >>> blue = np.zeros((2, 2, 3), np.uint8)
    >>> blue[..., 0] = 255
    >>> x = to_network_input(blue)
    >>> x.shape, x[0, :, 0, 0]
    (torch.Size([1, 3, 2, 2]), tensor([0., 0., 1.]))
    """
    rgb = torch.from_numpy(image).flip(-1)
    return rgb.permute(2, 0, 1).unsqueeze(0).float() / 255
