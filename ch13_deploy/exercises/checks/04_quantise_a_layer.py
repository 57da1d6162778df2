import numpy as np

NAME = "linear_in_int8"
TITLE = {"en": "A whole layer in int8", "zh": "用 int8 计算一整层"}
TEXT = {
    "en": """
Exercise 2 makes int8 numbers of floats. That saves memory; a layer is fast only if it also multiplies int8 numbers.
Write `linear_in_int8(q, scale, zero_point, weight, bias)`: q (N, I) is int8 and stands for scale * (q - zero_point),
as in exercise 2; weight (O, I) and bias (O,) are float. Return (q_weight, scales, sums, y). q_weight (O, I) is int8,
with 0 for 0 and one scale for each of the O rows: weight is about scales[:, None] * q_weight. sums (N, O) is int32,
the sums of (q - zero_point) * q_weight. y (N, O) is float, the layer's output. Between q and sums no float may be
needed: only then can a small device compute it.
""",
    "zh": """
练习 2 把浮点数变成 int8。这样省内存；要让一层变快，还必须用 int8 做乘法。写出 `linear_in_int8(q, scale, zero_point,
weight, bias)`：q (N, I) 是 int8，表示 scale * (q - zero_point)，与练习 2 相同；weight (O, I) 和 bias (O,) 是浮点数。返回
(q_weight, scales, sums, y)。q_weight (O, I) 是 int8，0 对应 0，O 行中每行一个 scale：weight 约等于 scales[:, None] *
q_weight。sums (N, O) 是 int32，即 (q - zero_point) * q_weight 之和。y (N, O) 是浮点数，即这一层的输出。从 q 到 sums 不能
需要浮点数：这样小型设备才能计算。
""",
}
HINTS = {
    "en": [
        "The scale of a row is its largest absolute value / 127; q_weight = round(weight / scale), clipped, then int8.",
        "Convert to int32 before multiplying: int8 wraps around. y = scale * scales * sums + bias.",
    ],
    "zh": [
        "一行的 scale 是该行最大的绝对值 / 127；q_weight = round(weight / scale)，截断到范围内，再转成 int8。",
        "相乘之前转成 int32：int8 会溢出。y = scale * scales * sums + bias。",
    ],
}


def example():
    """Four inputs, five outputs; the rows of the weight differ in size as those of trained layers do; the last is 0."""
    rng = np.random.default_rng(0)
    q = rng.integers(-128, 128, (4, 40)).astype(np.int8)
    weight = rng.normal(size=(5, 40)) * np.array([1, 0.3, 0.1, 0.01, 0])[:, None]
    return q, 0.02, -20, weight, rng.normal(size=5)


def about_weight(q_weight, scales, weight) -> tuple[str, str] | None:
    if getattr(q_weight, "dtype", None) != np.int8 or q_weight.shape != weight.shape:
        return f"q_weight must be int8 of the shape {weight.shape}", f"q_weight 必须是 int8，形状是 {weight.shape}"
    if np.shape(scales) != (5,) or not np.isfinite(scales).all() or not (np.asarray(scales) > 0).all():
        return "scales must be five finite numbers above 0, also for a row of zeros", (
            "scales 必须是五个大于 0 的有限数，全零的行也一样"
        )
    error = np.abs(scales[:, None] * q_weight - weight).max(1) / np.maximum(np.abs(weight).max(1), 1e-9)
    if error[3] > 0.02 > error[0]:
        return (
            f"the row with small weights is off by {error[3]:.0%} of its largest: a scale for each row",
            f"权重小的那一行误差是其最大值的 {error[3]:.0%}：每行要有自己的 scale",
        )
    if error.max() > 0.02:
        return (
            f"a weight is off by {error.max():.0%} of its row's largest",
            f"某个权重的误差是该行最大值的 {error.max():.0%}",
        )
    if error.max() > 0.0045:
        return (
            f"weights are off by up to {error.max() * 127:.1f} steps: round, do not cut off",
            f"权重的误差达到 {error.max() * 127:.1f} 步：应四舍五入，不要截断小数",
        )
    return None


def check(function) -> tuple[str, str] | None:
    q, scale, zero_point, weight, bias = example()
    with np.errstate(all="ignore"):
        q_weight, scales, sums, y = function(q.copy(), scale, zero_point, weight.copy(), bias.copy())
    if found := about_weight(q_weight, scales, weight):
        return found
    whole = q_weight.astype(int)
    right = (q.astype(int) - zero_point) @ whole.T
    if getattr(sums, "dtype", None) != np.int32 or sums.shape != right.shape:
        kind = getattr(sums, "dtype", type(sums).__name__)
        return f"sums must be int32 of the shape (4, 5), not {kind}", f"sums 必须是 int32，形状是 (4, 5)，不是 {kind}"
    if np.array_equal(sums, q.astype(int) @ whole.T):
        return (
            "sums are those of q, not of q - zero_point: every output is off by a constant",
            "sums 用的是 q，不是 q - zero_point：每个输出都差一个常数",
        )
    if not np.array_equal(sums, right) and np.abs(sums).max() < 256:
        return (
            f"the largest sum is {np.abs(sums).max()}, not {np.abs(right).max():,}: int8 wraps around",
            f"最大的和是 {np.abs(sums).max()}，应为 {np.abs(right).max():,}：int8 溢出了",
        )
    if not np.array_equal(sums, right):
        return f"sums: {sums[0, 0]}, not {right[0, 0]}", f"sums：得到 {sums[0, 0]}，应为 {right[0, 0]}"
    return about_output(y, scale * np.asarray(scales) * right, bias)


def about_output(y, without_bias, bias) -> tuple[str, str] | None:
    if np.shape(y) == without_bias.shape and np.allclose(y, without_bias + bias):
        return None
    if np.shape(y) == without_bias.shape and np.allclose(y, without_bias):
        return "y lacks the bias", "y 缺少偏置"
    wanted = f"{(without_bias + bias)[0, 0]:.3f}"
    return f"y[0, 0] is {np.ravel(y)[0]:.3f}, not {wanted}", f"y[0, 0] 是 {np.ravel(y)[0]:.3f}，应为 {wanted}"


def made(each=True, rounding=np.round, kind=np.int32, with_zero=True, bias=True, scaled=True, guard=True):
    def linear_in_int8(q, scale, zero_point, weight, b):
        largest = np.abs(weight).max(1) if each else np.full(len(weight), np.abs(weight).max())
        scales = np.where(largest == 0, 1, largest / 127) if guard else largest / 127
        q_weight = np.nan_to_num(rounding(weight / scales[:, None])).clip(-127, 127).astype(np.int8)
        sums = q.astype(kind) @ q_weight.astype(kind).T
        if with_zero:
            sums = sums - (zero_point * q_weight.astype(kind).sum(1, dtype=kind)).astype(kind)
        sums = sums.astype(np.int32) if kind == np.int8 else sums
        return q_weight, scales, sums, (scale * scales if scaled else scale) * sums + b * bias

    return linear_in_int8


MISTAKES = {
    "one scale": made(each=False),
    "cut off": made(rounding=np.trunc),
    "a row of zeros": made(guard=False),
    "wraps around": made(kind=np.int8),
    "float sums": made(kind=np.float32),
    "zero point forgotten": made(with_zero=False),
    "bias forgotten": made(bias=False),
    "weight's scale forgotten": made(scaled=False),
}
