"""What the chapter computes, against the same formula written plainly: augmentation, optimizers, schedules, networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import models
import optimizers
from augment import Augment

# ---- augmentation -----------------------------------------------------------------------------------------------------


def different_pixels(count, side=8):
    """`count` times the picture (3, side, side) whose pixels are all different, so that each tells where it came from."""
    return torch.arange(3 * side * side, dtype=torch.uint8).view(1, 3, side, side).repeat(count, 1, 1, 1)


def windows(picture, crop):
    """-> {(shift down, shift right): that window of the picture after NumPy's reflection padding}."""
    side = picture.shape[-1]
    padded = np.pad(picture.numpy(), ((0, 0), (crop, crop), (crop, crop)), mode="reflect")
    shifts = range(2 * crop + 1)
    return {(y, x): padded[:, y : y + side, x : x + side] for y in shifts for x in shifts}


def test_every_shift_of_a_crop_is_as_frequent_as_any_other():
    torch.manual_seed(0)
    images = different_pixels(2000)
    out = Augment(crop=2)(images, torch.arange(2000), 0).numpy()
    matches = {shift: (out == window).all((1, 2, 3)).sum() for shift, window in windows(images[0], 2).items()}
    assert len(matches) == 25 and sum(matches.values()) == 2000
    assert min(matches.values()) > 40 and max(matches.values()) < 130  # 80 is the mean


def test_crop_and_flip_together_are_one_after_the_other():
    torch.manual_seed(0)
    images, indices = different_pixels(50), torch.arange(50)
    flipped = (Augment(flip=True)(images, indices, 3) != images).flatten(1).any(1)
    assert 10 < flipped.sum() < 40
    for picture, flip in zip(Augment(crop=1, flip=True)(images, indices, 3).numpy(), flipped, strict=True):
        seen = picture[:, :, ::-1] if flip else picture
        assert sum(np.array_equal(seen, window) for window in windows(images[0], 1).values()) == 1


def test_cutout_is_a_square_anywhere_of_the_picture():
    torch.manual_seed(0)
    cut = (Augment(cutout=4)(torch.zeros(800, 3, 16, 16, dtype=torch.uint8), torch.arange(800), 0) == 128).numpy()
    assert (cut == cut[:, :1]).all()  # the same in all channels
    cut = cut[:, 0]
    rows, columns = cut.any(2), cut.any(1)
    assert np.array_equal(cut, rows[:, :, None] & columns[:, None, :])  # a rectangle
    assert rows.sum(1).max() == columns.sum(1).max() == 4 and rows.sum(1).min() >= 2 and columns.sum(1).min() >= 2
    share = cut.mean(0)  # of the pictures in which a pixel is cut; the centre is cut 4 * 4 times of 16 * 16
    assert share[3:-3, 3:-3].min() > 0.03 and share[3:-3, 3:-3].max() < 0.1 and share.min() > 0


def test_colour_scales_all_pixels_and_then_their_distance_from_the_mean():
    """A picture's brightness B and contrast C follow from its mean, B * mean, and its slope, B * C."""
    torch.manual_seed(0)
    images = torch.randint(50, 100, (300, 3, 16, 16), dtype=torch.uint8)
    images[:, 0] += 60  # the channels have different means; all values stay far from 0 and 255
    out = Augment(colour=0.2)(images, torch.arange(300), 0).double().flatten(1).numpy()
    pixels = images.double().flatten(1).numpy()
    brightness = out.mean(1) / pixels.mean(1)
    distance = pixels - pixels.mean(1, keepdims=True)
    slope = (distance * out).sum(1) / (distance**2).sum(1)
    expected = pixels.mean(1, keepdims=True) * brightness[:, None] + slope[:, None] * distance
    assert np.abs(out - expected).max() < 1.1  # rounding; the same line for all three channels
    for factor in (brightness, slope / brightness):
        assert 0.79 < factor.min() < 0.82 and 1.18 < factor.max() < 1.21 and abs(factor.mean() - 1) < 0.03
    assert abs(np.corrcoef(brightness, slope / brightness)[0, 1]) < 0.2


# ---- optimizers -------------------------------------------------------------------------------------------------------


def follow(optimizer, parameters, gradients):
    """Sets the gradients of each step and makes it -> the parameters after it, as float64 arrays."""
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(gradient).float()
        optimizer.step()
        yield [parameter.detach().double().numpy().copy() for parameter in parameters]


def random_gradients(parameters, steps):
    rng = np.random.default_rng(0)
    return [[rng.normal(size=tuple(p.shape)) for p in parameters] for _ in range(steps)]


def plain_sgd(p, gradient, decay, state, lr):
    gradient = gradient + decay * p
    state["momentum"] = 0.9 * state.get("momentum", 0) + gradient
    return p - lr * (gradient + 0.9 * state["momentum"])


def plain_adam(p, gradient, decay, state, lr):
    gradient = gradient + decay * p
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
    return p - lr * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


def plain_adamw(p, gradient, decay, state, lr):
    return plain_adam((1 - lr * decay) * p, gradient, 0, state, lr)


PLAIN = {"sgd": plain_sgd, "adam": plain_adam, "adamw": plain_adamw}


@pytest.mark.parametrize("name", PLAIN)
def test_optimizers_make_the_steps_of_their_papers(name):
    """Matrices decay, biases and batch norms do not."""
    torch.manual_seed(0)
    parameters = list(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).parameters())
    model = nn.ParameterList(parameters)
    optimizer = optimizers.make_optimizer(model, name, 0.1, 0.5)
    gradients, states = random_gradients(parameters, 3), [{} for _ in parameters]
    expected = [p.detach().double().numpy().copy() for p in parameters]
    for step, after in zip(gradients, follow(optimizer, parameters, gradients), strict=True):
        expected = [
            PLAIN[name](p, g, 0.5 if p.ndim > 1 else 0.0, state, 0.1)
            for p, g, state in zip(expected, step, states, strict=True)
        ]
        for one, other in zip(after, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def nearest_orthogonal(matrix):
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


def test_muon_makes_the_step_of_its_docstring(monkeypatch):
    """With an exact singular value decomposition in place of the iteration, which has a test of its own."""
    torch.manual_seed(0)
    exact = lambda matrix: torch.from_numpy(nearest_orthogonal(matrix.double().numpy())).float()  # noqa: E731
    monkeypatch.setattr(optimizers, "orthogonalize", exact)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 5))
    parameters = [model[0].weight, model[1].weight, model[0].bias, model[1].bias]
    optimizer = optimizers.make_optimizer(model, "muon", 0.1, 0.0)
    lr, mu, decay = (0.1, 0.27, 28.5, 28.5), (0.6, 0.85, 0.85, 0.85), (0, 0.003, 4e-5, 4e-5)
    gradients = random_gradients(parameters, 3)
    expected, momenta = [p.detach().double().numpy().copy() for p in parameters], [0.0] * 4
    for step, after in zip(gradients, follow(optimizer, parameters, gradients), strict=True):
        for i, p in enumerate(expected):
            gradient = step[i] + decay[i] * p
            momenta[i] = mu[i] * momenta[i] + gradient
            update = gradient + mu[i] * momenta[i]
            if i == 0:
                update = nearest_orthogonal(update.reshape(8, 27)).reshape(p.shape)
                p = p * math.sqrt(8) / np.linalg.norm(p)
            expected[i] = p - lr[i] * update
            np.testing.assert_allclose(after[i], expected[i], rtol=1e-5, atol=1e-4)


# ---- schedules --------------------------------------------------------------------------------------------------------


def rates(name, epochs=10, steps=10, resume_after=None):
    """The learning rate of each step; after `resume_after` epochs the optimizer is made anew from its saved state."""
    parameter, seen = nn.Parameter(torch.zeros(2, 2)), []
    parameter.grad = torch.zeros(2, 2)
    model = nn.ParameterList([parameter])
    optimizer = optimizers.make_optimizer(model, "sgd", 1.0, 0.0)
    scheduler = optimizers.make_scheduler(optimizer, name, epochs, steps)
    for epoch in range(epochs):
        if epoch == resume_after:
            saved = optimizer.state_dict()
            optimizer = optimizers.make_optimizer(model, "sgd", 1.0, 0.0)
            optimizer.load_state_dict(saved)
            scheduler = optimizers.make_scheduler(optimizer, name, epochs, steps, epoch)
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return seen


def cosine(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


RATES = {  # in step i of 100
    "onecycle": lambda i: cosine(1 / 25, 1, i / 19) if i <= 19 else cosine(1, 4e-6, (i - 19) / 80),
    "cosine": lambda i: cosine(1, 0, i / 100),
    "linear": lambda i: 1 - i / 100,
    "step": lambda i: 0.9 ** (i // 50),
}


@pytest.mark.parametrize("name", RATES)
def test_schedules_follow_their_formulas_also_when_resumed(name):
    expected = [RATES[name](i) for i in range(100)]
    np.testing.assert_allclose(rates(name), expected, atol=1e-6)
    np.testing.assert_allclose(rates(name, resume_after=4), expected, atol=1e-6)


# ---- networks ---------------------------------------------------------------------------------------------------------


def test_batch_norm_of_the_fast_network_has_fixed_scales_and_a_short_memory():
    """Two fifths of the running mean come from the last batch."""
    torch.manual_seed(0)
    model, seen = models.build("fastnet").train(), {}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, inputs: seen.update({module: inputs[0].mean((0, 2, 3))}))
    model(torch.randn(8, 3, 32, 32))
    assert len(norms) == len(seen) == 6 and not any(norm.weight.requires_grad for norm in norms)
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, 0.4 * seen[norm], rtol=1e-4, atol=1e-5)


def test_the_fast_network_starts_as_the_identity_and_pools_by_the_largest():
    torch.manual_seed(0)
    model = models.build("fastnet").eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
        for layer in convolutions[1:]:
            inputs = torch.randn(1, layer.in_channels, 5, 5)
            torch.testing.assert_close(layer(inputs)[:, : layer.in_channels], inputs)
        expected = model.features(x).amax((2, 3)) @ model.head.weight.T / 9
        torch.testing.assert_close(model(x), expected)


def test_whitening_divides_by_the_deviation_and_keeps_both_signs():
    """The directions' variances v become v / (v + 5e-4), the largest last direction first."""
    torch.manual_seed(0)
    images = nn.functional.avg_pool2d(torch.randn(100, 3, 18, 18), 3, 1)
    images[:, 2] = images[:, 1] + 0.02 * images[:, 2]  # so that some directions vary little
    model = models.build("fastnet")
    model.whiten(images)
    patches = np.lib.stride_tricks.sliding_window_view(images.double().numpy(), (2, 2), axis=(2, 3))
    patches = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    variances = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    out = model.features[0](images).double().detach()
    assert variances[-1] < 1e-4 < 0.1 < variances[0]
    np.testing.assert_allclose((out[:, :12] ** 2).mean((0, 2, 3)), variances / (variances + 5e-4), rtol=1e-2)
    torch.testing.assert_close(out[:, 12:], -out[:, :12])


def test_the_four_ways_of_inception_see_1_3_5_and_5_pixels():
    """A NaN in the middle of a picture spreads as far as the kernels reach."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 9, 9)
    x[0, :, 4, 4] = torch.nan
    out = models.Inception(3, 2, reduced=2).eval()(x)
    assert out.shape == (1, 8, 9, 9)
    assert [int(way.isnan().all(1).any(1).sum()) for way in out.chunk(4, dim=1)] == [1, 3, 5, 5]


def test_balanced_weights_make_all_classes_weigh_the_same():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = models.balanced(labels, 3)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert weights[labels].mean().item() == pytest.approx(1)
    assert models.balanced(labels, 4).isfinite().all()  # a class without a picture
