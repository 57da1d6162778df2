"""Sentence pairs -> train / val / test, as tensors in batches of like length (course 12-2, 12-3).

    python datasets.py                      # gets the English-Chinese pairs ready (or the sample) and describes them
    python datasets.py --data my_pairs.tsv  # the same for your own

A file of pairs has a pair a line, its sides separated by a tab; further fields (Tatoeba's licence) are left alone.
"""

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import sample
import utils
from text import END, PAD, START, Rules, Vocabulary
from utils import fail, fingerprint, rank, say, warn, world, write_atomic

URL = "https://www.manythings.org/anki/{}.zip"  # Tatoeba's pairs, sorted and packed anew now and then: no fixed hash
DEFAULT = "cmn-eng"
MEASURED = "5f216a96299b133dccc5efd3278135f038fb118c3d8071743ddd82df04c7ba4d"  # the cmn.txt of the README's numbers
SAMPLE_PAIRS = 5000
SHARES = {"test": 0.05, "val": 0.05}  # of the source sentences
DATA_HELP = (
    "auto (default): cmn-eng if it can be had, else sample; cmn-eng (or deu-eng ...); sample; or a file of pairs"
)


@dataclass
class Data:
    """Pairs (source, target) of normalised text, by split; what was left out, with its count; the file's SHA-256."""

    name: str
    splits: dict[str, list[tuple[str, str]]]
    left_out: Counter = field(default_factory=Counter)
    sha256: str | None = None


def load(name: str, root: str = "data", rules: Rules | None = None, reverse: bool = False) -> Data:
    """Loads `name`: auto, cmn-eng (or another language), sample, or the path of a file; `reverse` swaps the sides.

    auto is cmn-eng if it is in `root` or can be downloaded, else the sample, with a warning. Errors end the program with
    one line.
    """
    if name == "auto":
        try:
            path = find(DEFAULT, Path(root))
        except SystemExit as why:
            warn(
                f"{DEFAULT} is not to be had, so this run uses the built-in SAMPLE of a small grammar.\n"
                f"{why}\nA score on the sample says nothing about real sentences."
            )
            return load("sample", root, rules, reverse)
        name = DEFAULT
    elif name == "sample" and not Path(name).is_file():
        return split("sample", sample.make(SAMPLE_PAIRS), Counter(), rules or Rules(), reverse)
    elif re.fullmatch("[a-z]{3}-eng", name):
        path = find(name, Path(root))
    elif Path(name).is_file():
        path, name = Path(name), Path(name).stem
    else:
        fail(f"--data {name}: not cmn-eng (or deu-eng ...), sample or auto, and there is no file of that name")
    raw = path.read_bytes()
    pairs, left_out = read(raw, path)
    data = split(name, pairs, left_out, rules or Rules(), reverse)
    data.sha256 = hashlib.sha256(raw).hexdigest()
    if name == DEFAULT and data.sha256 != MEASURED:
        say(
            f"{path}: {len(pairs):,} pairs, another edition than that of the README's numbers; scores will differ a little"
        )
    return data


# ---- files of pairs ---------------------------------------------------------------------------------------------------


def find(name: str, root: Path) -> Path:
    """-> the file of a language's pairs in `root` (cmn.txt for cmn-eng), unpacked or downloaded first if need be."""
    text, packed = root / f"{name[:3]}.txt", root / f"{name}.zip"
    if not text.exists():
        if not packed.exists():
            download(name, packed)
        try:
            with zipfile.ZipFile(packed) as archive:
                write_atomic(text, archive.read(text.name))  # this one member, whatever else the archive holds
        except (zipfile.BadZipFile, KeyError) as error:
            fail(
                f"{packed}: no archive with a whole {text.name} in it ({error}); move it away to have it downloaded again"
            )
    return text


def download(name: str, path: Path) -> None:
    """Fetches the archive; zipfile checks its CRC when it is unpacked."""
    utils.download([URL.format(name)], path, check=check_archive)


def check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError("no ZIP archive came")


def read(raw: bytes, path: Path) -> tuple[list[tuple[str, str]], Counter]:
    """-> the pairs, and how many lines were of no use; the first of those are named."""
    try:
        lines = raw.decode("utf-8-sig").split("\n")  # and at nothing else that Unicode calls a line end
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        fail(f"{path}, line {line}: not UTF-8; save the file in that encoding")
    pairs, bad = [], Counter()
    for number, line in enumerate(lines, 1):
        sides = [side.strip() for side in line.split("\t")]
        why = "without a tab" if len(sides) < 2 else "with an empty side" if not (sides[0] and sides[1]) else None
        if why is None:
            pairs.append((sides[0], sides[1]))
        elif line.strip():
            bad[why] += 1
            if bad.total() <= 5:
                say(f"{path}, line {number}: skipped, {why}")
    if not pairs:
        fail(f"{path}: no line of it is a pair; expected `sentence<tab>sentence` a line")
    return pairs, bad


# ---- splits -----------------------------------------------------------------------------------------------------------


def key(sentence: str) -> str:
    """What two spellings of a sentence share: "Wait!" and "wait." must not stand in two splits."""
    return re.sub(r"[\W_]+", "", sentence.casefold()) or sentence


def not_too_long(pairs: list[tuple[str, str]], rules: Rules, max_length: int) -> list[tuple[str, str]]:
    """The pairs of which neither side has more than `max_length` tokens: one long sentence makes a whole batch long."""
    return [pair for pair in pairs if max(len(rules.cut(side)) for side in pair) <= max_length]


def part_of(sentence: str) -> str:
    """train, val or test, from a hash of the sentence: the same in every run, also when a later edition has more pairs."""
    place = int(hashlib.sha256(key(sentence).encode()).hexdigest()[:8], 16) / 16**8
    return "test" if place < SHARES["test"] else "val" if place < sum(SHARES.values()) else "train"


def describe_split(data: Data, source: str) -> dict:
    """What split.json holds: which pairs train, validate and test."""
    parts = {part: {mark_of(pair): pair[0] for pair in pairs} for part, pairs in data.splits.items()}
    return {"train": {}, "val": {}, "test": {}} | parts | {"data": source}


def mark_of(pair: tuple[str, str]) -> str:
    return fingerprint("\t".join(pair).encode("utf-8", "surrogatepass"))


def split(name: str, pairs: list, left_out: Counter, rules: Rules, reverse: bool) -> Data:
    """Normalises the pairs, drops what is double, and puts all pairs of a source sentence into the same split."""
    splits, seen = {"train": [], "val": [], "test": []}, set()
    for pair in pairs:
        source, target = (rules.normalise(side) for side in (reversed(pair) if reverse else pair))
        if not source or not target:
            left_out["with nothing left after normalising"] += 1
        elif (source, target) in seen:
            left_out["double after normalising"] += 1
        else:
            seen.add((source, target))
            splits[part_of(source)].append((source, target))
    if empty := [part for part, rows in splits.items() if not rows]:
        fail(f"{name}: {len(seen)} pairs leave nothing for {empty[0]}; a few hundred are needed")
    return Data(name, splits, left_out)


def by_source(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Each source sentence with all its translations."""
    grouped = {}
    for source, target in pairs:
        grouped.setdefault(source, []).append(target)
    return grouped


# ---- to the network ---------------------------------------------------------------------------------------------------


@dataclass
class Codec:
    """From a sentence to the numbers of its tokens, and back: what a model needs besides its weights."""

    rules: Rules
    source: Vocabulary
    target: Vocabulary
    max_length: int

    @classmethod
    def of(cls, pairs: list[tuple[str, str]], rules: Rules, at_least: int, max_length: int) -> "Codec":
        """Its vocabularies are counted on `pairs`: the training pairs, and no others."""
        sources = Vocabulary.of((rules.cut(source, lower=True) for source in by_source(pairs)), at_least)
        return cls(rules, sources, Vocabulary.of((rules.cut(target) for _, target in pairs), at_least), max_length)

    def encode_source(self, text: str) -> list[int]:
        """Normalised text -> numbers, the last of them END; what lies beyond max_length is cut off."""
        return self.source.encode(self.rules.cut(text, lower=True)[: self.max_length]) + [END]

    def encode_target(self, text: str) -> list[int]:
        return [START, *self.target.encode(self.rules.cut(text)[: self.max_length]), END]

    def too_long(self, text: str) -> bool:
        return len(self.rules.cut(text)) > self.max_length

    def metadata(self) -> dict:
        rules = {"chinese": self.rules.chinese, "script": self.rules.script}
        words = {"source_words": self.source.words, "target_words": self.target.words}
        return {"rules": rules, "max_length": self.max_length} | words

    @classmethod
    def from_metadata(cls, meta: dict) -> "Codec":
        words = Vocabulary(meta["source_words"]), Vocabulary(meta["target_words"])
        return cls(Rules(**meta["rules"]), *words, meta["max_length"])


def pad(rows: list[list[int]]) -> Tensor:
    """-> (N, longest) int64, filled with PAD at the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


class TokenBatches:
    """Batches (source (n, S), target (n, T), tokens) of about `batch_size` target tokens, padding included.

    The pairs are cut, numbered and padded once, and lie on the device. Sentences of like length share a batch, so
    little is padding, and short ones are many in a batch, so all batches are about the same work. Order and
    composition are drawn from (seed, epoch), the same in all processes, and each process takes its share of a batch.
    `tokens` counts the target tokens of the whole batch.
    """

    def __init__(self, pairs: list, codec: Codec, batch_size: int, device: torch.device, seed: int | None = None):
        self.source = pad([codec.encode_source(source) for source, _ in pairs]).to(device)
        self.target = pad([codec.encode_target(target) for _, target in pairs]).to(device)
        self.lengths = torch.stack([(side != PAD).sum(1) for side in (self.source, self.target)], 1).cpu()  # (N, 2)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def composition(self) -> list[Tensor]:
        """The row numbers of each batch of this epoch."""
        generator = torch.Generator().manual_seed((self.seed or 0) * 100_003 + self.epoch)
        noise = torch.rand(self.lengths.shape, generator=generator) if self.seed is not None else 0.5
        source, target = (self.lengths + 2 * noise).unbind(1)  # so that it is not always the same ones that meet
        order = (target * 1000 + source).argsort()
        batches, start, longest = [], 0, 0
        for end, length in enumerate(self.lengths[order].amax(1).tolist()):
            longest = max(longest, length)
            if (end + 1 - start) * longest > self.batch_size and end - start >= world():
                batches.append(order[start:end])
                start, longest = end, length
        if len(order) - start < world() and batches:  # a process without a sentence would leave the others waiting
            start -= len(batches.pop())
        batches.append(order[start:])
        if self.seed is None:
            return batches
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        self.batches = self.composition()
        for rows in self.batches:
            tokens = int(self.lengths[rows, 1].sum()) - len(rows)  # START is given, not predicted
            longest = self.lengths[rows].amax(0).tolist()
            mine = rows[rank() :: world()].to(self.source.device)
            yield self.source[mine, : longest[0]], self.target[mine, : longest[1]], tokens


def describe(data: Data, codec: Codec) -> None:
    for part, pairs in data.splits.items():
        print(f"{part:<6}{len(pairs):>8,} pairs of {len(by_source(pairs)):>7,} source sentences")
    for why, count in data.left_out.items():
        print(f"left out {count:,} {why}")
    for side, words in (("source", codec.source), ("target", codec.target)):
        print(f"{side} vocabulary: {len(words):,} tokens, e.g. {' '.join(repr(w) for w in words.words[4:14])}")
    lengths = Counter(len(codec.rules.cut(source)) // 5 * 5 for source, _ in data.splits["train"])
    for length, count in sorted(lengths.items()):
        print(f"{length:>4}-{length + 4:<4}{count:>7,} {'#' * (60 * count // max(lengths.values()))}")


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR")
    parser.add_argument("--reverse", action="store_true", help="translate the second column into the first")
    args = parser.parse_args(argv)
    data = load(args.data, args.data_root, reverse=args.reverse)
    print(f"{data.name}: SHA-256 of the file {data.sha256 or '(none: written by sample.py)'}")
    train = not_too_long(data.splits["train"], Rules(), 50)
    data.left_out["of the training pairs, longer than 50 tokens"] = len(data.splits["train"]) - len(train)
    describe(data, Codec.of(train, Rules(), 2, 50))


if __name__ == "__main__":
    utils.start(main)
