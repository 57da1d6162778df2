"""Image processing as tensor code, each operation equal to OpenCV's.

    python -m lessons images                   (with a picture)
    python -m lessons tracking                 (the next one)

Images are tensors `(3, H, W)`, RGB, or `(H, W)`, grey, with values from 0 to 255. Where a function rounds to whole
levels it may differ from OpenCV by one level in some pixels, because OpenCV computes in whole numbers there; each
example states its tolerance. OpenCV itself has its images as `(H, W, 3)`, BGR.
"""

import math
from pathlib import Path

import cv2  # noqa: F401 (for the examples)
import torch
import torch.nn.functional as F
from torch import Tensor

TITLE = "Image processing"
TITLE_ZH = "图像处理与特征工程"
LESSONS = {"5-1": "计算机视觉基本概念", "5-2": "图像处理常见概念", "5-3": "特征工程"}
FIGURES = {"match": "draw_operations"}


def scene(size: int = 96, seed: int = 0) -> Tensor:
    """To see what an operation does, a picture is needed whose parts are known. (5-1)

    A picture to work on: coloured shapes on a gradient, dark and noisy. `-> (3, size, size) uint8`.

    >>> scene().shape, scene().dtype, scene().float().mean().round()
    (torch.Size([3, 96, 96]), torch.uint8, tensor(70.))
    """
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    image = torch.stack([40 + 60 * x, 40 + 40 * y, 90 - 50 * x])
    image[:, (x - 0.3) ** 2 + (y - 0.35) ** 2 < 0.04] = torch.tensor([150.0, 40.0, 30.0])[:, None]
    image[:, (x > 0.55) & (x < 0.9) & (y > 0.5) & (y < 0.85)] = torch.tensor([30.0, 130.0, 60.0])[:, None]
    image[:, (x + y - 1.1).abs() < 0.02] = torch.tensor([160.0, 160.0, 140.0])[:, None]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)) * 6
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def to_cv(image: Tensor):
    """`(3, H, W)` RGB -> NumPy `(H, W, 3)` RGB, or `(H, W)` as it is.

    >>> to_cv(scene(8)).shape
    (8, 8, 3)
    """
    return image.permute(1, 2, 0).contiguous().numpy() if image.dim() == 3 else image.numpy()


def difference(image: Tensor, opencv_result) -> float:
    """The largest difference of a pixel from OpenCV's result.

    >>> difference(torch.zeros(2, 2), torch.eye(2).numpy())
    1.0
    """
    theirs = torch.from_numpy(opencv_result)
    theirs = theirs.permute(2, 0, 1) if theirs.dim() == 3 else theirs
    return (image.double() - theirs.double()).abs().max().item()


# ---- 5-1: colours --------------------------------------------------------------------------------------------------


def grey_versions(image: Tensor) -> dict[str, Tensor]:
    """Shape often suffices without colour, with a third of the numbers. (5-1)

    Five ways from colour to grey (灰度), `(3, H, W) uint8 -> (H, W) uint8` each.

    The weights follow the eye, which sees green best. Whole numbers and shifts are for machines that multiply
    fractions slowly: 77 : 151 : 28 of 256 are the same weights. (The notes write 28 for red and 77 for blue: that is
    right for OpenCV's order, blue first.)

    >>> pure = torch.tensor([255, 255, 255, 200, 0, 0]).view(2, 3).T.reshape(3, 2, 1).to(torch.uint8)
    >>> pure[:, :, 0].T.tolist()
    [[255, 255, 255], [200, 0, 0]]
    >>> {name: grey.flatten().tolist() for name, grey in grey_versions(pure).items()}
    {'float': [255, 60], 'integer': [255, 60], 'shift': [255, 60], 'average': [255, 66], 'green': [255, 0]}

    OpenCV's weights have a third digit: 0.299, 0.587, 0.114. That is at most one level away from the float form.

    >>> image = scene()
    >>> difference(grey_versions(image)["float"], cv2.cvtColor(to_cv(image), cv2.COLOR_RGB2GRAY)) <= 1
    True
    """
    r, g, b = image.to(torch.int32)
    versions = {
        "float": (0.3 * r + 0.59 * g + 0.11 * b).round(),
        "integer": (30 * r + 59 * g + 11 * b) // 100,
        "shift": (77 * r + 151 * g + 28 * b) >> 8,
        "average": (r + g + b) // 3,
        "green": g,
    }
    return {name: grey.to(torch.uint8) for name, grey in versions.items()}


def rgb_to_hsv(image: Tensor) -> Tensor:
    """`red` is hard to say in RGB under changing light; as a hue it is one interval. (5-1)

    Hue (色相, degrees 0 to 360), saturation (饱和度, 0 to 1), value (明度, as the input).

    `(3, H, W) -> (3, H, W)`.

    >>> colours = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]).T.unsqueeze(-1)
    >>> rgb_to_hsv(colours)[:, :, 0].T
    tensor([[  0.0000,   1.0000,   1.0000],
            [ 60.0000,   1.0000,   1.0000],
            [240.0000,   1.0000,   1.0000],
            [  0.0000,   0.0000,   0.5000]])
    >>> image = scene().float() / 255
    >>> difference(rgb_to_hsv(image), cv2.cvtColor(to_cv(image), cv2.COLOR_RGB2HSV)) < 0.01
    True
    """
    r, g, b = image
    value, spread = image.amax(0), image.amax(0) - image.amin(0)
    safe = spread.clamp(min=torch.finfo(image.dtype).tiny)
    hue = torch.where(value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = torch.where(spread == 0, torch.zeros_like(hue), hue * 60 % 360)  # grey has no hue; call it 0
    saturation = torch.where(value == 0, torch.zeros_like(value), spread / value.clamp(min=1e-12))
    return torch.stack([hue, saturation, value])


def hsv_to_rgb(image: Tensor) -> Tensor:
    """What was changed in hue or saturation must be shown on a screen again. (5-1)

    The way back, `(3, H, W) -> (3, H, W)`.

    >>> image = scene().float() / 255
    >>> torch.allclose(hsv_to_rgb(rgb_to_hsv(image)), image, atol=1e-5)
    True
    >>> hsv = rgb_to_hsv(image)
    >>> difference(hsv_to_rgb(hsv), cv2.cvtColor(to_cv(hsv), cv2.COLOR_HSV2RGB)) < 1e-5
    True
    """
    hue, saturation, value = image
    channels = []
    for offset in (5, 3, 1):  # red, green, blue: the same trapezoid over the circle of hues, a third apart
        k = (offset + hue / 60) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels)


# ---- 5-2: brightness, filters, edges, histograms, morphology -------------------------------------------------------


def brightness_contrast(image: Tensor, contrast: float, brightness: float) -> Tensor:
    """Photographs are too dark or too flat, and a network should not mind: vary both. (5-2)

    contrast * pixel + brightness (对比度, 亮度), kept between 0 and 255. `uint8 -> uint8`, same shape.

    >>> brightness_contrast(torch.tensor([0, 100, 200], dtype=torch.uint8), contrast=1.5, brightness=10)
    tensor([ 10, 160, 255], dtype=torch.uint8)
    >>> image = scene()
    >>> theirs = cv2.addWeighted(to_cv(image), 1.5, to_cv(image), 0, 10)
    >>> difference(brightness_contrast(image, 1.5, 10), theirs)
    0.0
    """
    return (contrast * image.float() + brightness).round().clamp(0, 255).to(torch.uint8)


def saturate(image: Tensor, factor: float) -> Tensor:
    """Colours fade with the weather and the camera: vary them in training. (5-2)

    Saturation (饱和度) by way of HSV: 0 is grey, 1 the same image, 2 gaudy. `(3, H, W) in [0, 1]`.

    >>> image = scene().float() / 255
    >>> grey = saturate(image, 0)
    >>> torch.equal(grey[0], grey[1]), torch.allclose(saturate(image, 1), image, atol=1e-5)
    (True, True)
    """
    hue, saturation, value = rgb_to_hsv(image)
    return hsv_to_rgb(torch.stack([hue, (saturation * factor).clamp(0, 1), value]))


def correlate(image: Tensor, kernel: Tensor) -> Tensor:
    """Blurring, sharpening, finding edges, and a convolution layer: all slide a kernel over the image. (5-2)

    Slides a kernel over an image, with the border mirrored as OpenCV does. `(H, W) or (C, H, W)`, float.

    >>> image = scene().float()[0]
    >>> kernel = torch.arange(9.0).view(3, 3)
    >>> difference(correlate(image, kernel), cv2.filter2D(image.numpy(), -1, kernel.numpy())) < 1e-2
    True
    """
    h, w = kernel.shape
    planes = image.reshape(-1, 1, *image.shape[-2:]).to(kernel.dtype)
    # for an even size, OpenCV's anchor is right of and below the middle
    padded = F.pad(planes, (w // 2, (w - 1) // 2, h // 2, (h - 1) // 2), mode="reflect")
    return F.conv2d(padded, kernel.view(1, 1, h, w)).view(image.shape)


def mean_filter(image: Tensor, size: int) -> Tensor:
    """Noise differs from pixel to pixel, the picture does not: average it away. (5-2)

    Each pixel becomes the mean of its neighbourhood (均值滤波): smooth, and blurred. `(.., H, W)` float.

    >>> image = scene().float()
    >>> difference(mean_filter(image, 5), cv2.blur(to_cv(image), (5, 5))) < 1e-3
    True
    """
    return correlate(image, torch.full((size, size), 1 / size**2))


def gaussian_filter(image: Tensor, size: int, sigma: float) -> Tensor:
    """A plain mean leaves boxes in the picture; near pixels should count more. (5-2)

    A mean that weighs near pixels more (高斯滤波), sigma in pixels. `(.., H, W)` float.

    >>> image = scene().float()
    >>> difference(gaussian_filter(image, 5, 1.2), cv2.GaussianBlur(to_cv(image), (5, 5), 1.2)) < 1e-3
    True
    """
    distance = torch.arange(size) - (size - 1) / 2
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    return correlate(image, torch.outer(weights, weights))


def median_filter(image: Tensor, size: int) -> Tensor:
    """A few pixels are quite wrong (dust, dead sensors): no average removes them, an order does. (5-2)

    Each pixel becomes the median (中值滤波): single wrong pixels vanish, edges stay. `(C, H, W) -> (C, H, W)`.

    The notes' example: a 29 among values near 148 is replaced by one of them.

    >>> patch = torch.tensor([[[145.0, 146, 150], [148, 29, 149], [147, 150, 148]]])
    >>> median_filter(patch, 3)[0, 1, 1], mean_filter(patch, 3)[0, 1, 1]
    (tensor(148.), tensor(134.6667))
    >>> image = scene()
    >>> difference(median_filter(image.float(), 5), cv2.medianBlur(to_cv(image), 5))
    0.0
    """
    padded = F.pad(image, [size // 2] * 4, mode="replicate")
    windows = padded.unfold(1, size, 1).unfold(2, size, 1)  # (C, H, W, size, size)
    return windows.reshape(*image.shape, -1).median(dim=-1).values


def edge_kernels(name: str) -> tuple[Tensor, Tensor]:
    """An object ends where brightness changes: measure the change in two directions. (5-2)

    The two kernels of Roberts (1963), Prewitt (1970) or Sobel (1968).

    Those of Prewitt and Sobel measure the change from left to right and from top to bottom; those of Roberts, 2 x 2, the
    change along the two diagonals.

    >>> edge_kernels("sobel")
    (tensor([[-1.,  0.,  1.],
            [-2.,  0.,  2.],
            [-1.,  0.,  1.]]), tensor([[-1., -2., -1.],
            [ 0.,  0.,  0.],
            [ 1.,  2.,  1.]]))
    >>> edge_kernels("roberts")
    (tensor([[-1.,  0.],
            [ 0.,  1.]]), tensor([[ 0., -1.],
            [ 1.,  0.]]))
    """
    kernels = {
        "roberts": [[-1, 0], [0, 1]],
        "prewitt": [[-1, 0, 1]] * 3,
        "sobel": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    }
    first = torch.tensor(kernels[name], dtype=torch.float32)
    return first, (first.flip(1) if name == "roberts" else first.T)


def edges(image: Tensor, name: str) -> Tensor:
    """Edges carry most of a shape, and stay where the light changes. (5-2)

    How steep the image is: the length of the gradient (边缘提取). `(H, W) -> (H, W)` float.

    >>> step = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    >>> edges(step, "sobel")[1], edges(step, "prewitt")[1]
    (tensor([ 0., 40., 40.,  0.]), tensor([ 0., 30., 30.,  0.]))
    >>> grey = scene().float().mean(0)
    >>> x, y = (cv2.Sobel(grey.numpy(), cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    >>> difference(edges(grey, "sobel"), cv2.magnitude(x, y)) < 1e-2
    True
    >>> x, y = (cv2.filter2D(grey.numpy(), cv2.CV_32F, kernel.numpy()) for kernel in edge_kernels("roberts"))
    >>> difference(edges(grey, "roberts"), cv2.magnitude(x, y)) < 1e-2
    True
    """
    x, y = (correlate(image, kernel) for kernel in edge_kernels(name))
    return torch.hypot(x, y)


def sharpen(image: Tensor, amount: float = 1.0) -> Tensor:
    """A soft picture looks clearer if its edges are lifted. (5-2)

    Sharpening (锐化): subtract the Laplacian, what a pixel lacks compared with its neighbours. `(.., H, W)`.

    >>> image = scene().float()
    >>> theirs = to_cv(image) - cv2.Laplacian(to_cv(image), cv2.CV_32F)
    >>> difference(sharpen(image), theirs) < 1e-2
    True
    """
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return image - amount * correlate(image, laplacian)


def equalise(plane: Tensor) -> Tensor:
    """A dark picture uses few of its 256 levels: spread them. (5-2)

    Histogram equalisation (直方图均衡化): spreads the levels so that each is as common. `(H, W) uint8`.

    The new level of a pixel is the share of pixels that are no lighter, times 255.

    >>> plane = scene()[0]
    >>> [(levels.min().item(), levels.max().item()) for levels in (plane, equalise(plane))]
    [(12, 179), (0, 255)]
    >>> difference(equalise(plane), cv2.equalizeHist(plane.numpy())) <= 1
    True
    """
    counts = plane.flatten().to(torch.int64).bincount(minlength=256)
    lowest = counts.nonzero()[0, 0]
    below = counts.cumsum(0) - counts[lowest]  # the darkest level becomes 0
    total = plane.numel() - counts[lowest]
    if total == 0:
        return plane.clone()  # one level only
    table = (below.clamp(min=0) * (255 / total.item())).round().to(torch.uint8)
    return table[plane.to(torch.int64)]


def equalise_colour(image: Tensor) -> Tensor:
    """What happens if each colour is equalised alone? A warning. (5-2)

    Each channel on its own: strong contrast, and the colours change. `(3, H, W) uint8`.

    >>> image = scene()
    >>> theirs = cv2.merge([cv2.equalizeHist(plane.numpy()) for plane in image])
    >>> difference(equalise_colour(image), theirs) <= 1
    True
    """
    return torch.stack([equalise(plane) for plane in image])


def equalise_yuv(image: Tensor) -> Tensor:
    """More contrast, and the same colours: change the brightness only. (5-2)

    Only the brightness Y of YUV, so that the colours stay. `(3, H, W) uint8 -> (3, H, W) uint8`.

    In whole numbers, weights as shares of 2^14: a Y that is one level off would be many levels off once it is spread.

    >>> image = scene()
    >>> yuv = cv2.cvtColor(to_cv(image), cv2.COLOR_RGB2YUV)
    >>> yuv[..., 0] = cv2.equalizeHist(yuv[..., 0])
    >>> difference(equalise_yuv(image), cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)) <= 1
    True
    """

    def shares(total: Tensor) -> Tensor:  # divides by 2^14, to the nearest whole number
        return (total + 8192) >> 14

    r, g, b = image.to(torch.int32)
    y = shares(4899 * r + 9617 * g + 1868 * b)  # 0.299, 0.587, 0.114
    u, v = (shares(t).clamp(-128, 127) for t in (8061 * (b - y), 14369 * (r - y)))  # 0.492, 0.877; one byte each
    y = equalise(y.to(torch.uint8)).to(torch.int32)
    rgb = torch.stack([y + shares(18678 * v), y + shares(-6472 * u - 9519 * v), y + shares(33292 * u)])
    return rgb.clamp(0, 255).to(torch.uint8)


def dilate(image: Tensor, size: int = 3) -> Tensor:
    """Broken strokes and small holes in a mask should close. (5-2)

    Dilation (膨胀): the largest value in a square; bright areas grow. `(C, H, W)` float.

    >>> image = scene()
    >>> difference(dilate(image.float(), 5), cv2.dilate(to_cv(image), torch.ones(5, 5).byte().numpy()))
    0.0
    """
    return F.max_pool2d(image.unsqueeze(0), size, stride=1, padding=size // 2).squeeze(0)


def erode(image: Tensor, size: int = 3) -> Tensor:
    """Specks and thin bridges between objects should go. (5-2)

    Erosion (腐蚀): the smallest value; bright areas shrink. `(C, H, W)` float.

    >>> image = scene()
    >>> difference(erode(image.float(), 5), cv2.erode(to_cv(image), torch.ones(5, 5).byte().numpy()))
    0.0
    """
    return -dilate(-image, size)


def morphology(image: Tensor, size: int = 3) -> dict[str, Tensor]:
    """Clean a mask without changing its size, or find its border. (5-2)

    Opening, closing, gradient, top hat, black hat (形态学运算), from the two above. `(C, H, W)` float.

    >>> image, square = scene(), torch.ones(3, 3).byte().numpy()
    >>> for name, result in morphology(image.float()).items():
    ...     theirs = cv2.morphologyEx(to_cv(image), getattr(cv2, f"MORPH_{name.upper()}"), square)
    ...     print(name, difference(result, theirs))
    open 0.0
    close 0.0
    gradient 0.0
    tophat 0.0
    blackhat 0.0
    """
    opened, closed = dilate(erode(image, size), size), erode(dilate(image, size), size)
    return {
        "open": opened,
        "close": closed,
        "gradient": dilate(image, size) - erode(image, size),
        "tophat": image - opened,
        "blackhat": closed - image,
    }


# ---- 5-3: features -------------------------------------------------------------------------------------------------


def local_binary_pattern(image: Tensor) -> Tensor:
    """Cloth, skin and grass are told apart by texture, under any light. (5-3)

    LBP: eight bits, one for each neighbour that is as bright or brighter. `(H, W) -> (H - 2, W - 2)`.

    A texture feature (Ojala et al. 1994) that more or less light does not change:

    >>> grey = scene().float().mean(0)
    >>> torch.equal(local_binary_pattern(grey), local_binary_pattern(grey * 0.5 + 20))
    True
    >>> local_binary_pattern(torch.tensor([[9.0, 9, 9], [0, 5, 0], [0, 0, 0]]))
    tensor([[7]], dtype=torch.int32)
    """
    h, w = image.shape
    centre = image[1:-1, 1:-1]
    places = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    return sum((image[y : y + h - 2, x : x + w - 2] >= centre).int() << bit for bit, (y, x) in enumerate(places))


def orientation_histogram(image: Tensor, bins: int = 9) -> Tensor:
    """Before deep learning, people were found in pictures by the directions of edges. (5-3)

    The idea of HOG (Dalal and Triggs 2005): how much edge points which way. `(H, W) -> (bins,)`, sum 1.

    A feature a linear classifier can use, where pixels are of no use: it tells lying stripes from standing ones
    wherever they begin. Bin 0 is a horizontal gradient, the middle bin a vertical one.

    >>> stripes = (torch.arange(16) // 2 % 2 * 100.0).repeat(16, 1)
    >>> for image in (stripes, stripes.roll(1, dims=1), stripes.T):
    ...     print([round(value, 2) for value in orientation_histogram(image, bins=4).tolist()])
    [1.0, 0.0, 0.0, 0.0]
    [1.0, 0.0, 0.0, 0.0]
    [0.0, 0.0, 1.0, 0.0]
    """
    x, y = (correlate(image, kernel) for kernel in edge_kernels("sobel"))
    angle = torch.atan2(y, x) % math.pi  # an edge from dark to bright counts as one from bright to dark
    index = (angle / math.pi * bins).round().long() % bins
    histogram = torch.zeros(bins).index_add(0, index.flatten(), torch.hypot(x, y).flatten())
    return histogram / histogram.sum()


def match(image: Tensor, template: Tensor) -> Tensor:
    """Where is this small picture in that large one? Tracking asks it in each frame. (5-3)

    Matching (匹配) and tracking: the correlation with a template at each place.

    `(H, W), (h, w) -> (H - h + 1, W - w + 1)`. Means taken off and lengths divided out, so that 1 is the same up to
    light and contrast.

    >>> grey = scene().float().mean(0)
    >>> template = grey[50:70, 30:60]
    >>> score = match(grey, template * 0.5 + 30)
    >>> divmod(score.argmax().item(), score.shape[1]), round(score.max().item(), 3)
    ((50, 30), 1.0)
    >>> difference(score, cv2.matchTemplate(grey.numpy(), template.numpy(), cv2.TM_CCOEFF_NORMED)) < 1e-3
    True
    """
    h, w = template.shape
    centred = (template - template.mean()).view(1, 1, h, w)
    windows = F.unfold(image.view(1, 1, *image.shape), (h, w))[0]  # (h * w, places)
    windows = windows - windows.mean(dim=0)
    score = centred.flatten() @ windows / (centred.norm() * windows.norm(dim=0))
    return score.view(image.shape[0] - h + 1, image.shape[1] - w + 1)


def draw_operations(folder: Path) -> Path:
    """The scene and what each operation makes of it."""
    from matplotlib.figure import Figure

    image, grey = scene(), grey_versions(scene())["float"]
    plane, changed = grey.float(), morphology(grey.float().unsqueeze(0), 5)
    panels = {
        "scene": image,
        "grey": grey,
        "contrast 2": brightness_contrast(image, 2, 0),
        "saturation 2": (saturate(image.float() / 255, 2) * 255).byte(),
        "mean 5": mean_filter(plane, 5),
        "Gaussian 5": gaussian_filter(plane, 5, 1.2),
        "median 5": median_filter(plane.unsqueeze(0), 5)[0],
        "sharpened": sharpen(plane).clamp(0, 255),
        **{name: edges(plane, name) for name in ("roberts", "prewitt", "sobel")},
        "equalised": equalise(grey),
        "equalised RGB": equalise_colour(image),
        "equalised Y": equalise_yuv(image),
        "opened": changed["open"][0],
        "gradient": changed["gradient"][0],
    }
    figure = Figure(figsize=(10, 10.6), layout="constrained")
    for axis, (title, panel) in zip(figure.subplots(4, 4).flat, panels.items(), strict=True):
        axis.imshow(to_cv(panel), cmap="gray")
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(folder / "images.png", dpi=90)
    return folder / "images.png"
