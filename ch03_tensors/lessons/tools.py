"""Watching a training: Visdom and tensorboardX; and torchvision, the library beside torch.

python -m lessons tools
python -m lessons neurons                  (the next one)
"""

import struct
from pathlib import Path

import torch
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor
from torchvision import datasets, models, utils
from torchvision.transforms import v2

TITLE = "Visdom, tensorboardX, torchvision"
TITLE_ZH = "visdom、tensorboardX 与 torchvision"
LESSONS = {
    "3-35": "Pytorch与visdom(调试工具)",
    "3-36": "Pytorch与tensorboardX",
    "3-37": "Pytorch与torchvision",
}


class VisdomPlot:
    """A training of hours should be watched from a browser while it runs. (3-35)

    Curves in a browser, drawn by a Visdom server while a training runs.

    In one terminal `python visdom_server.py`, in another `python train.py --visdom`; then open
    http://127.0.0.1:8097 in a browser. Install it with the two commands in requirements-visdom.txt.

    >>> try:
    ...     VisdomPlot("http://127.0.0.1:9", env="demo")  # nobody answers at port 9
    ... except ConnectionError as error:
    ...     print("no plot")
    no plot
    """

    def __init__(self, address: str, env: str):
        try:
            from visdom import Visdom
        except ImportError:
            raise ConnectionError("Visdom is not installed; see requirements-visdom.txt") from None
        host, _, port = address.rpartition(":")
        # No incoming socket: values only go out, and no thread keeps the program alive at its end.
        options = {"use_incoming_socket": False, "raise_exceptions": True}
        try:
            self.visdom = Visdom(server=host, port=int(port), env=env, **options)
            answers = self.visdom.check_connection(timeout_seconds=3)
        except (OSError, ValueError):
            answers = False
        if not answers:
            raise ConnectionError(f"no Visdom server answers at {address}; start one with: python visdom_server.py")

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends one point to the curve of each name. A server that has gone away does not end a training."""
        if self.visdom is None:
            return
        try:
            for name, value in values.items():
                options = {"title": name, "xlabel": "epoch"}
                self.visdom.line(X=[step], Y=[value], win=name, name=name, update="append", opts=options)
        except OSError:
            print("the Visdom server answers no more; going on without it")
            self.visdom = None


def write_scalars(folder: str | Path, steps: int) -> None:
    """Curves of many runs should be kept and compared later. (3-36)

    Writes two curves, a = i and b = i^2, as TensorBoard events.

    tensorboardX writes, `tensorboard --logdir FOLDER` shows it in a browser; TensorFlow is not needed.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_scalars(folder, steps=4)
    >>> read_scalars(folder)
    {'a': [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)], 'b': [(0, 0.0), (1, 1.0), (2, 4.0), (3, 9.0)]}
    """
    with SummaryWriter(str(folder)) as writer:
        for i in range(steps):
            writer.add_scalar("a", i, global_step=i)
            writer.add_scalar("b", i**2, global_step=i)


def read_scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Numbers in a log should be of use to a program too, not only to a picture. (3-36)

    Reads the curves of an events file back: name -> [(step, value), ...].

    The file is a chain of records: length (8 bytes), its checksum (4), the record, its checksum (4).

    >>> read_scalars("/")
    {}
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def augmented(image: Tensor, seed: int) -> Tensor:
    """A small data set is made larger by harmless changes: crops, mirrors, scales. (3-37)

    torchvision.transforms: prepares and varies images, `(3, H, W) uint8 -> (3, 32, 32) float32`.

    >>> image = torch.arange(3 * 40 * 40).remainder(256).to(torch.uint8).view(3, 40, 40)
    >>> x = augmented(image, seed=0)
    >>> x.shape, x.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    >>> torch.equal(augmented(image, seed=0), x), torch.equal(augmented(image, seed=1), x)
    (True, False)
    """
    steps = [
        v2.RandomCrop(32),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=[0.5] * 3, std=[0.5] * 3),
    ]
    with torch.random.fork_rng(devices=[]):  # the transforms draw from the shared generator: leave it as it was
        torch.manual_seed(seed)
        return v2.Compose(steps)(image)


def torchvision_parts() -> dict[str, str]:
    """Do not write what is there: data sets, transforms, trained models, grids of images. (3-37)

    Four parts of torchvision: data sets, transforms, models, image utilities.

    >>> for name, what in torchvision_parts().items():
    ...     print(f"{name:<10} {what}")
    datasets   4 images of shape (3, 8, 8), made up for tests
    transforms cropped, mirrored, normalised to (3, 32, 32)
    models     resnet18 with 11,181,642 parameters
    utils      a grid of the images, (3, 19, 19)
    """
    data = datasets.FakeData(size=4, image_size=(3, 8, 8), num_classes=2, transform=v2.ToImage())
    model = models.resnet18(weights=None, num_classes=10)  # weights="DEFAULT" would download trained ones
    grid = utils.make_grid([image for image, _ in data], nrow=2, padding=1)
    return {
        "datasets": f"{len(data)} images of shape {tuple(data[0][0].shape)}, made up for tests",
        "transforms": f"cropped, mirrored, normalised to {tuple(augmented(torch.zeros(3, 40, 40).byte(), 0).shape)}",
        "models": f"resnet18 with {sum(p.numel() for p in model.parameters()):,} parameters",
        "utils": f"a grid of the images, {tuple(grid.shape)}",
    }
