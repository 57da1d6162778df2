"""What this chapter's checkers share: they compare a function's answers with right ones, and know answers of typical
mistakes."""

from collections.abc import Callable, Iterable

from torch import Tensor, allclose

Words = tuple[str, str]  # a text in English, and in Chinese


def compare(
    function: Callable, right: Callable, examples: Iterable[tuple], reasons: dict[Callable, Words]
) -> Words | None:
    """Calls both with each example's arguments -> None if all answers are the same, else what is wrong, in both languages.

    `reasons`: functions with a typical mistake, and what to say to those who answer as they do."""
    for number, example in enumerate(examples, 1):
        found, wanted = (answers(f(*map(copied, example))) for f in (function, right))
        shapes = [", ".join(str(tuple(each.shape)) for each in tensors) for tensors in (found, wanted)]
        if same(found, wanted):
            continue
        for mistake, (english, chinese) in reasons.items():
            if same(found, answers(mistake(*map(copied, example)))):
                return english, chinese
        if shapes[0] != shapes[1]:
            return f"the shape is {shapes[0]}, not {shapes[1]}", f"形状是 {shapes[0]}，应为 {shapes[1]}"
        off = max(float((f - w).abs().max()) for f, w in zip(found, wanted, strict=True))
        return f"example {number}: off by up to {off:.4g}", f"例 {number}：最多相差 {off:.4g}"
    return None


def answers(value: Tensor | tuple) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def copied(value):
    return value.clone() if isinstance(value, Tensor) else value


def same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> bool:
    return [each.shape for each in found] == [each.shape for each in wanted] and all(
        allclose(f.detach().double(), w.detach().double(), atol=1e-6, equal_nan=True)
        for f, w in zip(found, wanted, strict=True)
    )
