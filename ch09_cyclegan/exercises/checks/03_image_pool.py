import random

import torch

NAME = "exchange"
TITLE = {"en": "The pool of earlier fakes", "zh": "先前生成的图像"}
TEXT = {
    "en": """
A discriminator that sees only the newest fakes forgets the older ones, and the generator comes back to them: both go
round in circles. A pool of earlier fakes helps. Write `exchange(pool, size, fakes, source)`: pool is a list of
pictures, fakes is (N, 3, S, S). While the pool is not full, each fake enters it and is shown too. Once it is full,
with probability 1/2 (source.random() < 0.5) a fake of the pool (source.randrange(size)) is shown, and the new one
takes its place; else the new one is shown. The result has N pictures without a gradient. With size 0 all fakes are
shown.
""",
    "zh": """
只看最新图像的判别器会忘记从前的，生成器于是又回到从前：两者兜圈子。保存一些先前生成的图像会有帮助。写出
`exchange(pool, size, fakes, source)`：pool 是图像的列表，fakes 的形状是 (N, 3, S, S)。未满时，每张新图像放入 pool，同
时也给判别器看。满了以后，以 1/2 的概率（source.random() < 0.5）给出 pool 里的一张（source.randrange(size)），新的一张
占据它的位置；否则给出新的一张。结果是 N 张没有梯度的图像。size 为 0 时，给出所有新图像。
""",
}
HINTS = {
    "en": [
        "Go through the fakes one by one; there are three cases: not full, exchanged, not exchanged.",
        "Keep what lay in the pool before you write the new one to its place; detach() the fakes first, clone() what stays.",
    ],
    "zh": [
        "逐张处理；有三种情况：未满、交换、不交换。",
        "把新图像写入之前，先留下那个位置上原来的图像；先对新图像 detach()，留下的要 clone()。",
    ],
}
SIZE, STEPS = 8, 200


def check(function) -> tuple[str, str] | None:
    pool, source = [], random.Random(0)
    shown = []
    for step in range(STEPS):
        fakes = (torch.zeros(2, 3, 1, 1) + torch.tensor([2.0 * step, 2.0 * step + 1]).view(2, 1, 1, 1)).requires_grad_()
        answer = function(pool, SIZE, fakes * 1, source)
        if answer.shape != fakes.shape:
            shapes = tuple(fakes.shape), tuple(answer.shape)
            return f"{shapes[1]} shown for {shapes[0]}", f"新图像是 {shapes[0]}，给出的却是 {shapes[1]}"
        if answer.requires_grad or any(picture.requires_grad for picture in pool):
            return (
                "shown or kept pictures have a gradient: each would keep the graph of its step in memory",
                "给出或保存的图像带有梯度：每一张都会把那一步的计算图留在内存里",
            )
        if len(pool) != min(SIZE, 2 * step + 2):
            return (
                f"after {2 * step + 2} fakes the pool holds {len(pool)}, not {min(SIZE, 2 * step + 2)}",
                f"生成 {2 * step + 2} 张之后，保存了 {len(pool)} 张，应为 {min(SIZE, 2 * step + 2)} 张",
            )
        shown += [(2 * step + i, int(answer[i, 0, 0, 0])) for i in range(2)]
    if any(new != old for new, old in shown[:SIZE]):
        return "while the pool is not full, the new fake itself is shown", "未满时，应给出新图像本身"
    share = sum(new != old for new, old in shown[SIZE:]) / len(shown[SIZE:])
    if not 0.35 < share < 0.65:
        return (
            f"older ones are shown in {share:.0%} of the cases, not in about half",
            f"给出旧图像的比例是 {share:.0%}，应约为一半",
        )
    older = [old for new, old in shown[SIZE:] if new != old]
    if min(picture.max() for picture in pool) < SIZE and max(older) < SIZE:
        return (
            f"only the first {SIZE} fakes are ever shown again: the new one must take the place of the old one",
            f"再次给出的永远是最初的 {SIZE} 张：新图像必须占据旧图像的位置",
        )
    if len(set(older)) < len(older):
        return (
            "a picture left the pool twice: the new one must take its place",
            "同一张图像离开了两次：新图像必须占据它的位置",
        )
    fakes = torch.ones(2, 3, 1, 1)
    if not torch.equal(function([], 0, fakes, source), fakes):
        return "with size 0 all fakes are shown", "size 为 0 时应给出所有新图像"
    return None


def made(detach=True, put=True, probability=0.5, show=True):
    def exchange(pool, size, fakes, source):
        chosen = []
        for fake in fakes.detach() if detach else fakes:
            if len(pool) < size:
                pool.append(fake.clone())
            elif size and source.random() < probability:
                place = source.randrange(size)
                old = pool[place]
                if put:
                    pool[place] = fake.clone()
                fake = old if show else fake
            chosen.append(fake)
        return torch.stack(chosen)

    return exchange


def grows(pool, size, fakes, source):
    pool += list(fakes.detach())
    return torch.stack([source.choice(pool) for _ in fakes])


MISTAKES = {
    "keeps the graph": made(detach=False),
    "the pool never changes": made(put=False),
    "always an old one": made(probability=1),
    "no limit": grows,
}
