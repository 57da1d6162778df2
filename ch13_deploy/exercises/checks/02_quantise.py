import numpy as np

NAME = "quantise"
TITLE = {"en": "Quantise by hand", "zh": "手写量化"}
TEXT = {
    "en": """
An int8 weight takes a quarter of the memory of a float32 one, and integer products are fast. Write `quantise(x)`: x
is a float array. Return (q, scale, zero_point): q is int8 of the same shape, and x is about scale * (q - zero_point).
Use the whole range from -128 to 127: the smallest value, or 0 if that is smaller, becomes about -128; the largest, or
0, about 127. 0 must come back exactly as 0. No value may be off by more than one step (scale), and on average by no
more than 0.4. An array of zeros is allowed.
""",
    "zh": """
int8 权重占用的内存是 float32 的四分之一，整数乘法也快。写出 `quantise(x)`：x 是浮点数组。返回 (q, scale,
zero_point)：q 是同样形状的 int8，x 约等于 scale * (q - zero_point)。用满 -128 到 127 的范围：最小值（若 0 更小则取
0）约为 -128；最大值（或 0）约为 127。0 必须恰好还原为 0。任何值的误差不能超过一步（scale），平均误差不超过 0.4 步。数
组可以全是 0。
""",
}
HINTS = {
    "en": [
        "256 values are 255 steps: scale = (high - low) / 255, where low <= 0 <= high.",
        "zero_point = round(-128 - low / scale); q = round(x / scale) + zero_point, clipped, then int8.",
    ],
    "zh": [
        "256 个值是 255 步：scale = (high - low) / 255，其中 low <= 0 <= high。",
        "zero_point = round(-128 - low / scale)；q = round(x / scale) + zero_point，截断到范围内，再转成 int8。",
    ],
}


def examples():
    rng = np.random.default_rng(0)
    yield "-1 to 1", rng.uniform(-1, 1, (40, 30))
    yield "0 to 6, after relu", np.maximum(rng.normal(1, 2, (40, 30)), 0).clip(0, 6)
    yield "2 to 3", rng.uniform(2, 3, (40, 30))
    yield "-0.001 to 0.0005", rng.uniform(-1e-3, 5e-4, (40, 30))
    yield "zeros", np.zeros((2, 3))


def check(function) -> tuple[str, str] | None:
    for name, x in examples():
        with np.errstate(all="ignore"):
            q, scale, zero = function(x.copy())
        if getattr(q, "dtype", None) != np.int8 or q.shape != x.shape:
            return f"{name}: q must be int8 of the shape {x.shape}", f"{name}：q 必须是 int8，形状是 {x.shape}"
        if not (np.isfinite(scale) and scale > 0):
            return f"{name}: the scale is {scale}", f"{name}：scale 是 {scale}"
        if zero != int(zero) or not -128 <= zero <= 127:
            return (
                f"{name}: no int8 stands for 0, the zero point is {zero}: the range must hold 0",
                f"{name}：没有表示 0 的 int8，zero_point 是 {zero}：范围必须包含 0",
            )
        error = np.abs(scale * (q.astype(float) - zero) - x) / scale
        if error.max() > 100:
            return (
                f"{name}: a value is off by {error.max():.0f} steps: int8 wraps around, clip before you convert",
                f"{name}：某个值差了 {error.max():.0f} 步：int8 会溢出，转换之前先截断",
            )
        if error.max() > 1.01:
            return f"{name}: a value is off by {error.max():.2f} steps", f"{name}：某个值差了 {error.max():.2f} 步"
        if error.mean() > 0.4:
            return (
                f"{name}: values are off by {error.mean():.2f} steps on average: round, do not cut off",
                f"{name}：平均误差是 {error.mean():.2f} 步：应四舍五入，不要截断小数",
            )
        steps = (max(x.max(), 0) - min(x.min(), 0)) / scale
        if x.any() and not 254 <= steps <= 256:
            return (
                f"{name}: only {steps:.0f} of 255 steps are used: half the range, a bit less precision",
                f"{name}：255 步只用了 {steps:.0f} 步：损失了精度",
            )
    return None


def made(rounding=np.round, with_zero=True, clip=True, symmetric=False, steps=255):
    def quantise(x):
        low, high = (min(x.min(), 0), max(x.max(), 0)) if with_zero else (x.min(), x.max())
        low, high = (-abs(x).max(), abs(x).max()) if symmetric else (low, high)
        scale = (high - low) / steps or 1.0
        zero = 0 if symmetric else round(-128 - low / scale)
        q = rounding(x / scale) + zero
        return (np.clip(q, -128, 127) if clip else q).astype(np.int64).astype(np.int8), scale, zero

    return quantise


MISTAKES = {
    "cut off": made(rounding=np.floor),
    "range without 0": made(with_zero=False),
    "wraps around": made(clip=False, steps=250),
    "symmetric": made(symmetric=True),
}
