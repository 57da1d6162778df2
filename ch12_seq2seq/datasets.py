"""Sentence pairs -> train / val / test, as tensors in batches of like length (course 12-2, 12-3).

    python datasets.py                      # gets the English-Chinese pairs ready (or the sample) and describes them
    python datasets.py --data my_pairs.tsv  # the same for your own

A file of pairs has a pair a line, its sides separated by a tab; further fields (Tatoeba's licence) are left alone. Two files,
one for each side, correspond line by line.
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
from text import END, PAD, START, Rules, Side, language_of
from utils import fail, fingerprint, rank, say, warn, world, write_atomic

URL = "https://www.manythings.org/anki/{}.zip"  # Tatoeba's pairs, sorted and packed anew now and then: no fixed hash
DEFAULT = "cmn-eng"
MEASURED = "5f216a96299b133dccc5efd3278135f038fb118c3d8071743ddd82df04c7ba4d"  # the cmn.txt of the README's numbers
SAMPLE_PAIRS = 5000
SHARES = {"test": 0.05, "val": 0.05}  # of the source sentences
DATA_HELP = (
    "auto (default): cmn-eng if it can be had, else sample; cmn-eng (deu-eng ...); sample; a file of pairs; two files"
)


@dataclass
class Data:
    """Pairs (source, target) of normalised text, by split; what was left out, with its count; the file's SHA-256."""

    name: str
    splits: dict[str, list[tuple[str, str]]]
    rules: tuple[Rules, Rules]  # of the source, of the target
    left_out: Counter = field(default_factory=Counter)
    sha256: str | None = None


def load(
    name: str | list[str],
    root: str = "data",
    chinese="chars",
    script="simplified",
    reverse: bool = False,
    how: str = "strict",
) -> Data:
    """Loads `name`: auto, cmn-eng (or another language), sample, the path of a file of pairs, or two files whose lines
    correspond; `reverse` swaps the sides, `how` is the kind of split.

    auto is cmn-eng if it is in `root` or can be downloaded, else the sample, with a warning. Errors end the program with
    one line.
    """
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    name = name if name != "auto" else available(root)
    rules = {"chinese": chinese, "script": script}
    if name == "sample" and not Path(name).is_file():
        return split("sample", sample.make(SAMPLE_PAIRS), Counter(), rules, reverse, how)
    name, paths = locate(name, root)
    pairs, left_out = read_two(*paths) if len(paths) == 2 else read(*paths)
    data = split(name, pairs, left_out, rules, reverse, how)
    data.sha256 = utils.hash_of(paths[0])
    if name == DEFAULT and data.sha256 != MEASURED:
        say(f"{paths[0]}: {len(pairs):,} pairs, another edition than the README's; scores will differ a little")
    return data


def available(root: str) -> str:
    """What auto is: cmn-eng, or the sample with a warning."""
    try:
        find(DEFAULT, Path(root))
        return DEFAULT
    except SystemExit as why:
        warn(
            f"{DEFAULT} is not to be had, so this run uses the built-in SAMPLE of a small grammar.\n"
            f"{why}\nA score on the sample says nothing about real sentences."
        )
        return "sample"


def locate(name: str | list[str], root: str) -> tuple[str, list[Path]]:
    """-> the short name of a data set, and its one or two files."""
    if isinstance(name, list):
        paths = [Path(one) for one in name]
        stems = [path.stem for path in paths]
        return stems[0] if stems[0] == stems[1] else "-".join(stems), paths
    if Path(name).is_file():
        return Path(name).stem, [Path(name)]
    if not re.fullmatch("[a-z]{3}-eng", name):
        fail(f"--data {name}: not cmn-eng (or deu-eng ...), sample or auto, and there is no file of that name")
    return name, [find(name, Path(root))]


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


def read(path: Path) -> tuple[list[tuple[str, str]], Counter]:
    """-> the pairs of a file with a pair a line, and how many lines were of no use; the first of those are named."""
    rows = [line.split("\t") for line in utils.read_text(path).split("\n")]  # not at U+2028 and its like
    full = [row for row in rows if len(row) > 1]
    columns = (0, 1)
    if full and all(len(row) >= 4 and is_number(row[0]) and is_number(row[2]) for row in full):
        columns = (1, 3)
        say(f"{path}: sentence numbers in columns 1 and 3, as Tatoeba exports them; the sentences are columns 2 and 4")
    for side in columns:
        if len(full) > 20 and sum(is_number(row[side]) for row in full if len(row) > side) > len(full) / 2:
            fail(f"{path}: column {side + 1} holds numbers, not sentences; expected `sentence<tab>sentence` a line")
    sides = [[row[i].strip() if i < len(row) else None for i in columns] for row in rows]
    pairs, bad = usable(path, sides)
    if not pairs:
        fail(f"{path}: no line of it is a pair; expected `sentence<tab>sentence` a line")
    return pairs, bad


def is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"\s*\d+\s*", cell))


def read_two(source: Path, target: Path) -> tuple[list[tuple[str, str]], Counter]:
    """The same of two files, line by line."""
    texts = []
    for path in (source, target):
        if not path.is_file():
            fail(f"--data {path}: there is no file of that name")
        texts.append(utils.read_text(path).removesuffix("\n").split("\n"))
    if len(texts[0]) != len(texts[1]):
        fail(f"{source} has {len(texts[0]):,} lines, {target} {len(texts[1]):,}: they must correspond line by line")
    pairs, bad = usable(source, [[one.strip() for one in row] for row in zip(*texts, strict=True)])
    return pairs, bad if pairs else fail(f"{source}: no line of it is half of a pair")


def usable(path: Path, rows: list[list[str | None]]) -> tuple[list[tuple[str, str]], Counter]:
    """-> the rows of two sides, and a count of the others, the first of which are named."""
    pairs, bad = [], Counter()
    for number, (source, target) in enumerate(rows, 1):
        if source and target:
            pairs.append((source, target))
        elif source or target:
            why = "without a tab" if target is None else "with an empty side"
            bad[why] += 1
            if bad.total() <= 5:
                say(f"{path}, line {number}: skipped, {why}")
    return pairs, bad


# ---- splits -----------------------------------------------------------------------------------------------------------


def key(sentence: str) -> str:
    """What two spellings of a sentence share: "Wait!" and "wait." must not stand in two splits."""
    return re.sub(r"[\W_]+", "", sentence.casefold()) or sentence


def not_too_long(pairs: list[tuple[str, str]], codec: "Codec", max_length: int) -> list[tuple[str, str]]:
    """The pairs of which neither side has more than `max_length` tokens: one long sentence makes a whole batch long."""
    cuts = (codec.source.cut, codec.target.cut)
    return [pair for pair in pairs if max(len(cut(side)) for cut, side in zip(cuts, pair, strict=True)) <= max_length]


def part_of(name: str) -> str:
    """train, val or test, from a hash: the same in every run, also when a later edition has more pairs."""
    place = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 16**8
    return "test" if place < SHARES["test"] else "val" if place < sum(SHARES.values()) else "train"


def groups_of(pairs: list[tuple[str, str]], how: str) -> list[str]:
    """-> for each pair the name of its group, which stays together in the split.

    source: pairs with the same source. strict: all that hang together, by either side: if two sentences have a translation
    in common, they and all their translations are one group. It is named after the source whose hash is least.
    """
    if how == "source":
        return [key(source) for source, _ in pairs]
    above: dict[tuple[int, str], tuple[int, str]] = {}

    def top(node):
        while above.setdefault(node, node) != node:
            above[node] = node = above[above[node]]
        return node

    for source, target in pairs:
        above[top((0, key(source)))] = top((1, key(target)))
    tops, names = [top((0, key(source))) for source, _ in pairs], {}
    for (source, _), group in zip(pairs, tops, strict=True):
        names[group] = min(names.get(group, key(source)), key(source), key=lambda name: utils.draw(name, "group"))
    return [names[group] for group in tops]


def describe_split(data: Data, source: str | list[str]) -> dict:
    """What split.json holds: which pairs train, validate and test; `unused` is what --limit and --max-length left out."""
    parts = {part: {mark_of(pair): pair[0] for pair in pairs} for part, pairs in data.splits.items()}
    return {"train": {}, "val": {}, "test": {}} | parts | {"data": source}


def mark_of(pair: tuple[str, str]) -> str:
    return fingerprint("\t".join(pair).encode("utf-8", "surrogatepass"))


def split(name: str, pairs: list, left_out: Counter, rules: dict, reverse: bool, how: str) -> Data:
    """Finds the languages of both sides, normalises the pairs, drops what is double, and splits by groups."""
    if reverse:
        pairs = [pair[::-1] for pair in pairs]
    sides = tuple(Rules(**rules, language=language_of(side)) for side in zip(*pairs, strict=True))
    whole: dict[tuple[str, str], None] = {}
    for pair in pairs:
        source, target = (rule.normalise(side) for rule, side in zip(sides, pair, strict=True))
        if not source or not target:
            left_out["with nothing left after normalising"] += 1
        elif (source, target) in whole:
            left_out["double after normalising"] += 1
        else:
            whole[source, target] = None
    splits: dict[str, list] = {"train": [], "val": [], "test": []}
    for pair, group in zip(whole, groups_of(list(whole), how), strict=True):
        splits[part_of(group)].append(pair)
    if empty := [part for part, rows in splits.items() if not rows]:
        fail(f"{name}: {len(whole)} pairs leave nothing for {empty[0]}; a few hundred are needed")
    return Data(name, splits, sides, left_out)


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

    source: Side
    target: Side
    max_length: int

    @classmethod
    def of(
        cls, pairs: list, rules: tuple[Rules, Rules], at_least: int, max_length: int, subwords=(None, None)
    ) -> "Codec":
        """Its vocabularies are counted on `pairs`: the training pairs, and no others. `subwords` says how many pieces
        either side is cut into by SentencePiece; None: words."""
        sources, targets = list(by_source(pairs)), [target for _, target in pairs]
        source = Side.of(sources, rules[0], True, at_least, subwords[0])
        return cls(source, Side.of(targets, rules[1], False, at_least, subwords[1]), max_length)

    def encode_source(self, text: str) -> list[int]:
        """Normalised text -> numbers, the last of them END; what lies beyond max_length is cut off."""
        return self.source.encode(self.source.cut(text)[: self.max_length]) + [END]

    def encode_target(self, text: str) -> list[int]:
        return [START, *self.target.encode(self.target.cut(text)[: self.max_length]), END]

    def too_long(self, text: str) -> bool:
        return len(self.source.cut(text)) > self.max_length

    def metadata(self) -> dict:
        return {"max_length": self.max_length, "source": self.source.metadata(), "target": self.target.metadata()}

    @classmethod
    def from_metadata(cls, meta: dict) -> "Codec":
        return cls(Side.from_metadata(meta["source"]), Side.from_metadata(meta["target"]), meta["max_length"])


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
        """The row numbers of each batch of this epoch. Pairs are sorted by the target's length, of equal ones by the
        source's; of pairs alike in both, chance decides which meet."""
        generator = torch.Generator().manual_seed((self.seed or 0) * 100_003 + self.epoch)
        chance = torch.randperm(len(self.lengths), generator=generator) if self.seed is not None else slice(None)
        order = torch.arange(len(self.lengths))[chance]
        for side in (0, 1):
            order = order[self.lengths[order, side].argsort(stable=True)]
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
            mine = rows[rank() :: world()].to(self.source.device, non_blocking=True)
            yield self.source[mine, : longest[0]], self.target[mine, : longest[1]], tokens


def describe(data: Data, codec: Codec) -> None:
    for part, pairs in data.splits.items():
        say(f"{part:<6}{len(pairs):>8,} pairs of {len(by_source(pairs)):>7,} source sentences")
    for why, count in data.left_out.items():
        say(f"left out {count:,} {why}")
    for side, words in (("source", codec.source), ("target", codec.target)):
        say(f"{side} vocabulary: {len(words):,} tokens, e.g. {' '.join(repr(w) for w in words.words[4:14])}")
    lengths = Counter(len(codec.source.cut(source)) // 5 * 5 for source, _ in data.splits["train"])
    for length, count in sorted(lengths.items()):
        print(f"{length:>4}-{length + 4:<4}{count:>7,} {'#' * (60 * count // max(lengths.values()))}")


def add_data_flags(group) -> None:
    """The flags of train.py and datasets.py that say which pairs."""
    group.add_argument("--data", nargs="+", default="auto", metavar="NAME", help=DATA_HELP)
    group.add_argument("--data-root", default="data", metavar="DIR", help="where pairs lie (default: %(default)s)")
    group.add_argument("--reverse", action="store_true", help="translate the second column into the first")
    group.add_argument(
        "--split",
        choices=("strict", "source"),
        default="strict",
        help="strict (default): no sentence of either side stands in two parts; source: no source sentence",
    )


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    add_data_flags(parser)
    args = parser.parse_args(argv)
    data = load(args.data, args.data_root, reverse=args.reverse, how=args.split)
    say(f"{data.name}: SHA-256 of the file {data.sha256 or '(none: written by sample.py)'}")
    codec = Codec.of(data.splits["train"], data.rules, 2, 50)
    train = not_too_long(data.splits["train"], codec, 50)
    data.left_out["of the training pairs, longer than 50 tokens"] = len(data.splits["train"]) - len(train)
    describe(data, Codec.of(train, data.rules, 2, 50))


if __name__ == "__main__":
    utils.start(main)
