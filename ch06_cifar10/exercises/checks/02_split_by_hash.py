import os
import random
import subprocess
import sys
from collections import Counter
from inspect import getsourcefile

NAME = "part_of"
TITLE = {"en": "A split that cannot leak", "zh": "不会泄漏的划分"}
TEXT = {
    "en": """
Collected pictures hold copies. If one copy trains and the other tests, the test measures memory. Shuffling with a
seed does not help: a picture that you add later moves all others. Write `part_of(picture)`: it takes the bytes of a
file and says "train", "val" or "test", about 80, 10 and 10 of 100. The same bytes must have the same answer: today,
tomorrow, on another computer, and whatever was asked before.
""",
    "zh": """
收集来的图片里有重复。如果一份用于训练，另一份用于测试，测试量到的就是记忆。用随机种子打乱也不行：以后增加一张图片，其
他图片的位置都会变。写出 `part_of(picture)`：参数是文件的字节，返回 "train"、"val" 或 "test"，每 100 张中约 80、10、10
张。同样的字节必须得到同样的答案：今天、明天、在另一台计算机上，无论之前问过什么。
""",
}
HINTS = {
    "en": [
        "Turn the bytes into a number that looks random but is always the same: a hash. See hashlib.sha256.",
        "The number modulo 100 is below 80 for about 80 of 100 pictures.",
    ],
    "zh": [
        "把字节变成一个看似随机、但总是相同的数：哈希值。见 hashlib.sha256。",
        "这个数除以 100 的余数，每 100 张图片中约有 80 张小于 80。",
    ],
}


def elsewhere(function, pictures: list[bytes]) -> list[str]:
    """The answers of another process, whose hash() has another seed."""
    code = (
        "import runpy, sys; part = runpy.run_path(sys.argv[1])[sys.argv[2]];"
        "print(*[part(bytes.fromhex(word)) for word in sys.argv[3:]])"
    )
    words = [sys.executable, "-c", code, getsourcefile(function), function.__name__, *(p.hex() for p in pictures)]
    return subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    ).stdout.split()


def check(function) -> tuple[str, str] | None:
    source = random.Random(0)
    pictures = [b"\x89PNG" + i.to_bytes(2, "big") + source.randbytes(20) for i in range(2000)]
    parts = [function(picture) for picture in pictures]
    if odd := sorted(set(map(str, parts)) - {"train", "val", "test"}):
        return f"{odd[0]!r} is not a part", f"没有 {odd[0]!r} 这个部分"
    if moved := sum(function(picture) != part for picture, part in zip(pictures, parts, strict=True)):
        return (
            f"asked twice, {moved} of 2000 pictures changed their part: copies of them would leak",
            f"问第二次时，2000 张图片中有 {moved} 张换了部分：它们的副本会泄漏",
        )
    shares = {part: Counter(parts)[part] / len(parts) for part in ("train", "val", "test")}
    if any(abs(shares[part] - right) > 0.03 for part, right in (("train", 0.8), ("val", 0.1), ("test", 0.1))):
        words = ", ".join(f"{share:.2f}" for share in shares.values())
        return (
            f"shares of train, val, test: {words}; wanted: 0.80, 0.10, 0.10",
            f"train、val、test 的比例：{words}；应为 0.80, 0.10, 0.10",
        )
    if elsewhere(function, pictures[:40]) != parts[:40]:
        return (
            "another Python process answers otherwise: hash() of bytes has a new seed in each process",
            "另一个 Python 进程的答案不同：每个进程中 hash() 的种子都不同",
        )
    return None


def drawn(picture):
    return random.choices(["train", "val", "test"], [80, 10, 10])[0]


def by_hash(picture):
    place = hash(picture) % 100
    return "train" if place < 80 else "val" if place < 90 else "test"


def by_length(picture):
    return "train" if len(picture) % 10 < 8 else "test"


MISTAKES = {"draws": drawn, "Python's hash": by_hash, "not even": by_length}
