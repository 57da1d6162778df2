import torch
from torch import nn
from torch.nn import functional as F

NAME = "cycle_loss"
TITLE = {"en": "The cycle loss", "zh": "循环损失"}
TEXT = {
    "en": """
The discriminators of CycleGAN ask only that a translation looks like its domain. A network that turns every horse
into the same zebra passes. The cycle asks for more: a picture that goes to the other domain and back must be itself
again. Write `cycle_loss(g_ab, g_ba, real_a, real_b)`: g_ab translates A to B, g_ba B to A. The loss is the mean
absolute difference for A plus that for B, and both networks learn from both.
""",
    "zh": """
CycleGAN 的判别器只要求翻译的结果看起来属于目标域。把每匹马都变成同一匹斑马的网络也能通过。循环要求更多：一张图像到另
一个域再回来，必须还是它自己。写出 `cycle_loss(g_ab, g_ba, real_a, real_b)`：g_ab 把 A 变成 B，g_ba 把 B 变成 A。损失
是 A 的平均绝对差加上 B 的平均绝对差，两个网络都从两个方向学习。
""",
}
HINTS = {
    "en": [
        "Two ways: A to B to A, and B to A to B. Each is compared with where it began.",
        "g_ba(g_ab(real_a)) and g_ab(g_ba(real_b)); mean of the absolute differences; no detach.",
    ],
    "zh": [
        "有两条路：A 到 B 到 A，以及 B 到 A 到 B。各自与起点比较。",
        "g_ba(g_ab(real_a)) 和 g_ab(g_ba(real_b))；绝对差的平均值；不用 detach。",
    ],
}


def made(back_a=lambda ab, ba, a, b: ba(ab(a)), back_b=lambda ab, ba, a, b: ab(ba(b)), distance=F.l1_loss, of_b=1):
    def cycle_loss(g_ab, g_ba, real_a, real_b):
        words = g_ab, g_ba, real_a, real_b
        return distance(back_a(*words), real_a) + of_b * distance(back_b(*words), real_b)

    return cycle_loss


one_way = made(of_b=0)
there_only = made(lambda ab, ba, a, b: ab(a), lambda ab, ba, a, b: ba(b))
squares = made(distance=F.mse_loss)
detached = made(lambda ab, ba, a, b: ba(ab(a).detach()), lambda ab, ba, a, b: ab(ba(b).detach()))


def check(function) -> tuple[str, str] | None:
    torch.manual_seed(0)
    g_ab, g_ba = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    words = g_ab, g_ba, *torch.randn(2, 2, 3, 8, 8)
    found, right = function(*words), made()(*words)
    slips = {
        one_way: ("only A goes there and back; B must too", "只有 A 走了来回；B 也要"),
        there_only: ("the translation itself is compared: go back first", "比较的是翻译的结果：要先回来"),
        squares: ("squares; take absolute differences", "用了平方；应取绝对差"),
    }
    if found.ndim or not torch.isclose(found, right, atol=1e-6):
        value = f"{float(found.detach().mean()):.4f}", f"{float(right.detach()):.4f}"
        english, chinese = next(
            (why for slip, why in slips.items() if torch.isclose(found.mean(), slip(*words), atol=1e-6)),
            ("compare each picture with itself after both networks", "经过两个网络之后，每张图像与自己比较"),
        )
        return f"{value[0]}, not {value[1]}: {english}", f"得到 {value[0]}，应为 {value[1]}：{chinese}"
    weights = [*g_ab.parameters(), *g_ba.parameters()]
    gradients = torch.autograd.grad(found, weights, allow_unused=True) if found.requires_grad else [None] * 4
    wanted = torch.autograd.grad(right, weights)
    if not all(g is not None and torch.allclose(g, w, atol=1e-5) for g, w in zip(gradients, wanted, strict=True)):
        return (
            "the value is right, but the first network of each way learns nothing from it: do not detach",
            "数值正确，但每条路上的第一个网络什么也学不到：不要 detach",
        )
    return None


MISTAKES = {"one way": one_way, "not back": there_only, "squares": squares, "detached": detached}
