import torch
from torch import nn

from gans import least_squares

NAME = "losses"
TITLE = {"en": "Two losses, and where the gradient must stop", "zh": "两个损失，以及梯度应在哪里停下"}
TEXT = {
    "en": """
Generator and discriminator pull the same number in opposite directions. Write
`losses(generator, discriminator, x, real)`: it translates x into fakes and returns two scalars. The generator's: the
mean of (D(fake) - 1)^2. The discriminator's: half the mean of (D(real) - 1)^2 plus half the mean of D(fake)^2. The
first must have a gradient in the generator, the second none. No loss through sigmoid or logarithm: these are least
squares.
""",
    "zh": """
生成器和判别器把同一个数往相反的方向拉。写出 `losses(generator, discriminator, x, real)`：把 x 变成生成的图像，返回两
个标量。生成器的损失：(D(fake) - 1)^2 的平均值。判别器的损失：(D(real) - 1)^2 平均值的一半加上 D(fake)^2 平均值的一
半。第一个损失对生成器要有梯度，第二个没有。不用 sigmoid 或对数：这是最小二乘。
""",
}
HINTS = {
    "en": [
        "Both losses look at the same fake, but only one of them may reach back into the generator.",
        "fake.detach() is the same picture without its history: give that to the discriminator for its own loss.",
    ],
    "zh": [
        "两个损失看的是同一张生成的图像，但只有一个损失的梯度可以回到生成器。",
        "fake.detach() 是同一张图像，但没有来历：计算判别器自己的损失时给它这个。",
    ],
}


def course(generator, discriminator, x, real):
    fake = generator(x)
    judged = (least_squares(discriminator(real), 1) + least_squares(discriminator(fake.detach()), 0)) / 2
    return least_squares(discriminator(fake), 1), judged


def check(function) -> tuple[str, str] | None:
    torch.manual_seed(0)
    generator, discriminator = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 4, 2, 1)
    x, real = torch.randn(2, 2, 3, 8, 8)
    wanted, judged = function(generator, discriminator, x, real)
    right = course(generator, discriminator, x, real)
    values = [float(v.detach()) for v in (wanted, judged, *right)]
    if abs(values[0] - values[2]) > 1e-5:
        return (
            f"the generator's loss is {values[0]:.4f}, not {values[2]:.4f}: it wants D(fake) = 1",
            f"生成器的损失是 {values[0]:.4f}，应为 {values[2]:.4f}：它希望 D(fake) = 1",
        )
    if abs(values[1] - 2 * values[3]) < 1e-5:
        return (
            f"the discriminator's loss is {values[1]:.4f}, twice {values[3]:.4f}: half of each part",
            f"判别器的损失是 {values[1]:.4f}，是 {values[3]:.4f} 的两倍：两部分各取一半",
        )
    if abs(values[1] - values[3]) > 1e-5:
        return (
            f"the discriminator's loss is {values[1]:.4f}, not {values[3]:.4f}: 1 for real, 0 for fake",
            f"判别器的损失是 {values[1]:.4f}，应为 {values[3]:.4f}：真实为 1，生成为 0",
        )
    weights = list(generator.parameters())
    gradient = torch.autograd.grad(judged, weights, allow_unused=True, retain_graph=True)
    if any(g is not None and g.any() for g in gradient):
        return (
            "the discriminator's loss has a gradient in the generator: it would learn to be found out; detach the fake",
            "判别器的损失对生成器有梯度：生成器会学着被识破；要 detach 生成的图像",
        )
    gradient = torch.autograd.grad(wanted, weights, allow_unused=True) if wanted.requires_grad else [None]
    if any(g is None for g in gradient):
        return (
            "the generator's loss has no gradient in the generator: its fake must not be detached",
            "生成器的损失对生成器没有梯度：这里不能 detach 生成的图像",
        )
    return None


def with_(of_generator=lambda fake: fake, of_discriminator=lambda fake: fake.detach(), target=1, share=0.5):
    def losses(generator, discriminator, x, real):
        fake = generator(x)
        parts = least_squares(discriminator(real), 1) + least_squares(discriminator(of_discriminator(fake)), 0)
        return least_squares(discriminator(of_generator(fake)), target), share * parts

    return losses


MISTAKES = {
    "no detach": with_(of_discriminator=lambda fake: fake),
    "detached for both": with_(of_generator=lambda fake: fake.detach()),
    "the generator wants 0": with_(target=0),
    "not halved": with_(share=1),
}
