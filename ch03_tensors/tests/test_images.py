"""The image operations equal OpenCV's, on noise and on shapes of odd sizes, each within its tolerance."""

import cv2
import numpy as np
import pytest
import torch

from lessons import images
from lessons.images import difference, to_cv
from lessons.techniques import flip_image, read_image


@pytest.fixture(params=[(24, 32), (17, 23)], ids=str)
def noise(request) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *request.param), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=["noise", "scene", "black", "white"])
def picture(request, noise) -> torch.Tensor:
    flat = torch.zeros(3, 9, 9, dtype=torch.uint8)
    return {"noise": noise, "scene": images.scene(40, seed=1), "black": flat, "white": flat + 255}[request.param]


def test_grey_within_one_level(picture):
    theirs = cv2.cvtColor(to_cv(picture), cv2.COLOR_RGB2GRAY)
    versions = images.grey_versions(picture)
    assert list(versions) == ["float", "integer", "shift", "average", "green"]
    assert difference(versions["float"], theirs) <= 1
    assert difference(versions["integer"], theirs) <= 2 and difference(versions["shift"], theirs) <= 2
    assert difference(versions["average"], to_cv(picture).astype(int).sum(-1) // 3) == 0


def test_hsv_within_a_hundredth_of_a_degree(picture):
    image = picture.float() / 255
    theirs = cv2.cvtColor(to_cv(image), cv2.COLOR_RGB2HSV)
    ours = images.rgb_to_hsv(image)
    turn = (ours[0].numpy() - theirs[..., 0] + 180) % 360 - 180  # 359.99 and 0 are neighbours
    assert np.abs(turn).max() <= 0.01
    assert difference(ours[1:], theirs[..., 1:]) <= 1e-5
    assert difference(images.hsv_to_rgb(ours), to_cv(image)) <= 1e-5


@pytest.mark.parametrize("contrast, brightness", [(1.5, 10), (0.5, -20), (3.0, 0)])
def test_brightness_and_contrast_exactly(picture, contrast, brightness):
    theirs = cv2.addWeighted(to_cv(picture), contrast, to_cv(picture), 0, brightness)
    assert difference(images.brightness_contrast(picture, contrast, brightness), theirs) == 0


@pytest.mark.parametrize("size", [3, 5, 7])
def test_filters(picture, size):
    image, levels = picture.float(), to_cv(picture)
    assert difference(images.mean_filter(image, size), cv2.blur(to_cv(image), (size, size))) <= 1e-3
    assert difference(images.mean_filter(image, size).round(), cv2.blur(levels, (size, size))) <= 1
    theirs = cv2.GaussianBlur(to_cv(image), (size, size), 1.3)
    assert difference(images.gaussian_filter(image, size, 1.3), theirs) <= 1e-3
    assert difference(images.median_filter(image, size), cv2.medianBlur(levels, size)) == 0


def test_edges(picture):
    grey = picture.float().mean(0)
    plane = grey.numpy()
    x, y = (cv2.Sobel(plane, cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    assert difference(images.edges(grey, "sobel"), cv2.magnitude(x, y)) <= 1e-2
    kernels = {
        "prewitt": ([[-1, 0, 1]] * 3, [[-1] * 3, [0] * 3, [1] * 3]),
        "roberts": ([[-1, 0], [0, 1]], [[0, -1], [1, 0]]),
    }
    for name, pair in kernels.items():
        x, y = (cv2.filter2D(plane, cv2.CV_32F, np.array(kernel, np.float32)) for kernel in pair)
        assert difference(images.edges(grey, name), cv2.magnitude(x, y)) <= 1e-2


def test_sharpening(picture):
    image = to_cv(picture.float())
    assert difference(images.sharpen(picture.float()), image - cv2.Laplacian(image, cv2.CV_32F)) <= 1e-2


def test_equalisation_within_one_level(picture):
    theirs = [cv2.equalizeHist(plane.numpy()) for plane in picture]
    assert difference(images.equalise(picture[0]), theirs[0]) <= 1
    assert difference(images.equalise_colour(picture), cv2.merge(theirs)) <= 1


def test_yuv_equalisation_within_two_levels(picture):
    yuv = cv2.cvtColor(to_cv(picture), cv2.COLOR_RGB2YUV)
    yuv[..., 0] = cv2.equalizeHist(yuv[..., 0])
    assert difference(images.equalise_yuv(picture), cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)) <= 2


@pytest.mark.parametrize("size", [3, 5])
def test_morphology_exactly(picture, size):
    square, levels, image = np.ones((size, size), np.uint8), to_cv(picture), picture.float()
    assert difference(images.dilate(image, size), cv2.dilate(levels, square)) == 0
    assert difference(images.erode(image, size), cv2.erode(levels, square)) == 0
    for name, ours in images.morphology(image, size).items():
        theirs = cv2.morphologyEx(levels, getattr(cv2, f"MORPH_{name.upper()}"), square)
        assert difference(ours, theirs) == 0, name


def test_matching(noise):
    grey = noise.float().mean(0)
    template = grey[5:12, 4:15]
    theirs = cv2.matchTemplate(grey.numpy(), template.numpy(), cv2.TM_CCOEFF_NORMED)
    score = images.match(grey, template)
    assert difference(score, theirs) <= 1e-3 and divmod(score.argmax().item(), score.shape[1]) == (5, 4)


def test_flip_on_the_device(noise, device):
    assert np.array_equal(flip_image(to_cv(noise), device), cv2.flip(to_cv(noise), 0))


def test_reading_an_image_file(tmp_path, noise):
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", to_cv(noise))[1].tobytes())
    assert np.array_equal(read_image(path), cv2.imread(str(path)))
