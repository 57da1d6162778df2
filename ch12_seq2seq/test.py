"""Measures a trained translator on the test split, or translates what you give it.

    python test.py "I love you."                      # the newest run, or else the shipped weights, translate
    python test.py letter.txt                         # each line of a file; `-` is standard input
    python test.py --run runs/general-cmn-eng         # BLEU, chrF, perplexity, test.json, translations.tsv, attention.png
    python test.py "I love you." --attention map.png  # which words it looked at

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import io
import json
import math
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import datasets
import heatmap
import models
import search
import utils
from datasets import Codec, TokenBatches
from losses import cross_entropy
from metrics import bleu, chrf, exact
from text import join
from utils import Number, fail

WEIGHTS = Path(__file__).parent / "weights" / "general.safetensors"
NEEDED = {"arch", "sizes", "data", "reverse", "rules", "max_length", "source_words", "target_words"}
LENGTHS = (5, 10, 15, 20, 10**9)  # source tokens: up to 5, 6 to 10, ...


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="sentences, files of sentences, or -, to translate instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where pairs lie (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--beam", type=Number(int, 1, 100), default=5, help="1 is greedy (default: %(default)s)")
    parser.add_argument(
        "--length-penalty",
        type=Number(float, 0, 10),
        default=1.0,
        help="above 0 favours long ones (default: %(default)s)",
    )
    parser.add_argument("--attention", metavar="FILE", help="draw where it looked while translating what you gave it")
    parser.add_argument("--font", metavar="FILE", help="a font file for the pictures (default: an installed one)")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights, in 16 bits, and their score")
    utils.add_device_flag(parser)
    args = parser.parse_args(argv)
    if args.font and not Path(args.font).is_file():
        fail(f"--font {args.font}: no such file")
    return args


def load_model(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, Codec, dict, Path]:
    """-> the network in eval mode, its codec, what its file says of it, and the file."""
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    state, meta = utils.load_weights(path)
    if NEEDED - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(NEEDED))} are needed)")
    codec = Codec.from_metadata(meta)
    words = {"source": len(codec.source), "target": len(codec.target)}
    model = models.build(meta["arch"], words["source"], words["target"], **meta["sizes"])
    for side, count in words.items():
        there = state.get(f"{side}_embedding.weight")
        if there is not None and len(there) != count:
            fail(f"{path}: another vocabulary: {count:,} {side} words are listed, and weights for {len(there):,}")
    try:
        model.load_state_dict(state)
    except RuntimeError:
        fail(f"{path}: says {meta['arch']}, but the weights in it are of another network")
    if args.export:  # what is measured is what is saved: weights rounded to 16 bits
        model.half().float()
    utils.say_weights(path, meta)
    return model.to(device).eval(), codec, meta, path


# ---- the test split ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def perplexity(model: nn.Module, codec: Codec, pairs: list, device: torch.device) -> float:
    """exp of the mean -log p of a token of the right translation, its end included."""
    total, count = 0.0, 0
    for source, target, tokens in TokenBatches(pairs, codec, 4000, device):
        total += cross_entropy(model(source, target[:, :-1]), target[:, 1:]).item()
        count += tokens
    return math.exp(min(total / count, 80.0))


def measure(answers: list[str], pairs: list[tuple[str, str]], codec: Codec) -> dict:
    """Scores of the answers to the different sources of `pairs`, in their order; `rows` has them by length."""
    references = datasets.by_source(pairs)
    answer_of = dict(zip(references, answers, strict=True))
    every = list(references.values())
    single, signature = bleu([answer_of[source] for source, _ in pairs], [[target] for _, target in pairs])
    several, _ = bleu(answers, every)
    chrf_score, chrf_signature = chrf(answers, every)
    result = {"bleu": single, "bleu_all_references": several, "chrf": chrf_score, "exact": exact(answers, every)}
    result |= {"signature": signature, "chrf_signature": chrf_signature, "sentences": len(answers), "pairs": len(pairs)}
    lengths, rows, low = {source: len(codec.encode_source(source)) - 1 for source in references}, [], 0
    for high in LENGTHS:
        chosen = [source for source in references if low < lengths[source] <= high]
        if chosen:
            ours, theirs = [answer_of[source] for source in chosen], [references[source] for source in chosen]
            row = {"from": low + 1, "to": max(lengths[source] for source in chosen), "sentences": len(chosen)}
            rows.append(row | {"bleu_all_references": bleu(ours, theirs)[0], "exact": exact(ours, theirs)})
        low = high
    return result | {"rows": rows}


def print_table(result: dict) -> None:
    print(f"{'source tokens':<16}{'sentences':>10}{'BLEU':>8}{'exact':>8}")
    for row in result["rows"]:
        span = f"{row['from']} to {row['to']}"
        print(f"{span:<16}{row['sentences']:>10,}{row['bleu_all_references']:>8.2f}{row['exact']:>8.3f}")


def print_examples(answers: dict[str, list[str]], references: dict[str, list[str]], codec: Codec) -> None:
    """The first two sentences of each length."""
    shown = dict.fromkeys(LENGTHS, 0)
    for source, tokens in answers.items():
        length = next(high for high in LENGTHS if len(codec.encode_source(source)) - 1 <= high)
        if shown[length] < 2:
            shown[length] += 1
            print(f"  {source}\n    is      {' | '.join(references[source])}\n    answer  {join(tokens)}")


def draw_lengths(result: dict, path: Path) -> None:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    names = [f"{row['from']} to {row['to']}\n({row['sentences']})" for row in result["rows"]]
    axis.bar(names, [row["bleu_all_references"] for row in result["rows"]])
    axis.set(xlabel="source tokens (sentences)", ylabel="BLEU, all references", title=f"BLEU {result['bleu']:.2f}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    utils.write_atomic(path, buffer.getvalue())


def test(
    args: argparse.Namespace, model: nn.Module, codec: Codec, meta: dict, path: Path, device: torch.device
) -> None:
    source_of_data = args.data or source_of(meta, path)
    data = datasets.load(source_of_data, args.data_root, codec.rules, meta["reverse"])
    pairs = held_out(data, path)
    references = datasets.by_source(pairs)
    warn_of_long(codec, list(references))
    start = time.perf_counter()
    answers = search.translate(model, codec, list(references), device, args.beam, args.length_penalty)
    seconds = time.perf_counter() - start
    about = {"arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name, "sha256": data.sha256}
    about |= {
        "weights": str(path),
        "reverse": meta["reverse"],
        "beam": args.beam,
        "length_penalty": args.length_penalty,
    }
    about |= {"torch": torch.__version__, "perplexity": perplexity(model, codec, pairs, device)}
    result = about | measure(search.as_text(answers), pairs, codec)

    out = output_folder(args, meta, path)
    print_examples(answers, references, codec)
    print_table(result)
    lines = [f"{s}\t{' | '.join(references[s])}\t{join(tokens)}" for s, tokens in answers.items()]
    utils.write_atomic(out / "translations.tsv", "source\treferences\tanswer\n" + "\n".join(lines) + "\n")
    draw_lengths(result, out / "by_length.png")
    middling = [source for source in answers if 5 <= len(codec.rules.cut(source)) <= 12]
    drawn = draw_attention(args, model, codec, {s: answers[s] for s in middling[:3]}, out / "attention.png", device)
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1, ensure_ascii=False))
    print(
        f"{meta['arch']}, trained on {meta['data']}: test BLEU {result['bleu']:.2f} (one reference; all references: "
        f"{result['bleu_all_references']:.2f}), chrF {result['chrf']:.2f}, perplexity {result['perplexity']:.2f}, exact "
        f"{result['exact']:.4f} on {data.name} ({len(answers):,} sentences, {seconds:.1f} s on {device})"
    )
    print(f"signatures {result['signature']} and {result['chrf_signature']}")
    print(f"wrote {out}: {', '.join(['test.json', 'translations.tsv', 'by_length.png', *(p.name for p in drawn)])}")
    if args.export:
        export(args, model, meta, path, result)


def held_out(data: datasets.Data, path: Path) -> list[tuple[str, str]]:
    """-> the test pairs, without those that the run trained on (there are none, unless the rules of the split changed)."""
    pairs = {datasets.mark_of(pair): pair for pair in data.splits["test"]}
    if (path.parent / "split.json").exists():
        split, names = utils.read_json(path.parent / "split.json"), {mark: pair[0] for mark, pair in pairs.items()}
        chosen = utils.held_out(split, names, set(pairs), names_stay=False, same_data=False)
        pairs = {mark: pair for mark, pair in pairs.items() if mark in chosen}
    return list(pairs.values()) or fail("no pair is left that did not train")


def source_of(meta: dict, path: Path) -> str:
    """The --data that the run was trained with; for shared weights, the name of their data."""
    return utils.read_arguments(path.parent)["data"] if (path.parent / "args.json").exists() else meta["data"]


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    return utils.output_folder(
        args.out or (path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}")
    )


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score; the vocabularies are in `meta`."""
    recipe = utils.read_arguments(path.parent)
    flags = "".join(f" --{name.replace('_', '-')}" for name in ("reverse", "compile") if recipe[name])
    command = f"python train.py --arch {meta['arch']} --data {meta['data']} --seed {recipe['seed']} --epochs {recipe['epochs']}"
    command += f" --precision {recipe['precision']}{flags}"
    names = (
        "bleu",
        "bleu_all_references",
        "signature",
        "chrf",
        "perplexity",
        "beam",
        "length_penalty",
        "tested_on",
        "torch",
    )
    utils.save_weights(args.export, model.half(), **meta, command=command, score={name: result[name] for name in names})
    print(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


# ---- your sentences ---------------------------------------------------------------------------------------------------


def read_texts(names: list[str]) -> list[str]:
    """Each sentence as it is; of a file, and of standard input, each line."""
    texts = []
    for name in names:
        is_file = name == "-" or (len(name) < 250 and Path(name).is_file())
        if not is_file:
            texts.append(name)
            continue
        try:
            raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            texts += raw.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            fail(f"{name}: not UTF-8; save the file in that encoding")
    return texts


def draw_attention(args, model, codec: Codec, answers: dict[str, list[str]], path: Path, device) -> list[Path]:
    """-> the files written: none if the network has no attention."""
    rows = []
    for source, tokens in answers.items():
        row = codec.target.encode(tokens)
        weights = search.attention(model, codec, source, row, device)
        if weights is not None:
            words = codec.rules.cut(source)[: codec.max_length]
            rows.append(([*words, "(end)"], [*tokens, "(end)"], weights))
    return heatmap.draw(rows, path, args.font) if rows else []


def warn_of_long(codec: Codec, texts: list[str]) -> None:
    for number, text in enumerate(texts, 1):
        if codec.too_long(text):
            count = len(codec.rules.cut(text))
            print(f"sentence {number}: {count:,} tokens; only the first {codec.max_length} are read", file=sys.stderr)


def answer(args: argparse.Namespace, model: nn.Module, codec: Codec, device: torch.device) -> None:
    """Prints a line for each sentence: its translation. What cannot be translated whole is said on stderr."""
    texts = [codec.rules.normalise(text) for text in read_texts(args.texts)]
    warn_of_long(codec, texts)
    answers = search.translate(model, codec, texts, device, args.beam, args.length_penalty)
    for text in texts:
        print(join(answers[text]))
    if args.attention:
        some = {text: answers[text] for text in list(answers)[:4] if text}
        drawn = draw_attention(args, model, codec, some, Path(args.attention), device)
        print(f"wrote {', '.join(map(str, drawn))}" if drawn else "this network has no attention", file=sys.stderr)


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    model, codec, meta, path = load_model(args, device)
    if args.texts:
        answer(args, model, codec, device)
    else:
        test(args, model, codec, meta, path, device)


if __name__ == "__main__":
    utils.start(main)
