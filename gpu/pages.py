"""The report of a machine, as JSON and as a page of tables."""

import json
import statistics
from pathlib import Path

from steps import write_atomic

MACHINE = ("name", "driver_version", "torch", "cuda", "cudnn", "python", "clocks.sm", "clocks.max.sm", "clocks.mem")
MACHINE += ("memory.total", "power.limit", "temperature.gpu", "cpu", "cores", "flags", "threads", "bf16_over_fp32")


def write(path: Path, found: dict) -> None:
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_atomic(path.with_suffix(".md"), "\n".join(page(found)) + "\n")


def words(figures: dict) -> str:
    """The figures on one line; of a list only its length, of a table nothing: the JSON file has them."""
    shown = []
    for name, value in figures.items():
        if isinstance(value, dict):
            value = "; ".join(f"{key} {one}" for key, one in value.items())
        if not isinstance(value, list):
            shown.append(f"{name} {value}")
    return ", ".join(shown)


def page(found: dict) -> list[str]:
    machine, records = found["machine"], found["steps"]
    lines = [f"# {machine['name']}", "", f"Measured on {found['date']} by `python gpu/measure.py`."]
    lines += ["**A dry run on tiny sizes: no figure here says anything.**"] if found["dry"] else []
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell(machine[name])} |" for name in MACHINE if name in machine]
    products = ", ".join(f"{name} {value}" for name, value in machine["products"].items())
    lines += [f"| matrix products, TFLOP/s | {products} |"]
    lacks = {name for names in found["lacks"].values() for name in names}
    lines += [f"| packages that are not there | {', '.join(sorted(lacks)) or 'none'} |"]
    means = list(groups(records))
    if means:
        lines += [
            "",
            "## Means over seeds",
            "",
            "| | score | training, s | seeds | goal |",
            "|---|---|---|---|---|",
            *means,
        ]
    lines += ["", "## Steps", "", "| step | found | goal | s | command |", "|---|---|---|---|---|"]
    for name, record in records.items():
        if record["status"] == "done":
            command = "<br>".join(f"`{cell(one)}`" for one in record["commands"])
            lines.append(
                f"| {name} | {cell(words(record['figures']))} | {record['goal']} | {record['seconds']} | {command} |"
            )
    rest = {name: record for name, record in records.items() if record["status"] != "done"}
    if rest:
        lines += ["", "## Not measured", "", "| step | | why |", "|---|---|---|"]
        lines += [f"| {name} | {record['status']} | {cell(record['why'][-300:])} |" for name, record in rest.items()]
    return lines


def groups(records: dict):
    """A row for each group of steps that differ by their seed: mean and standard deviation of the score."""
    for group in dict.fromkeys(record.get("group") for record in records.values()):
        same = [r for r in records.values() if group and r.get("group") == group and "score" in r.get("figures", {})]
        if same:
            scores, seconds = ([r["figures"][name] for r in same] for name in ("score", "train_s"))
            spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
            score = f"{same[0]['figures']['score_is']} {statistics.mean(scores):.4f}{spread}"
            yield f"| {group} | {score} | {statistics.mean(seconds):.1f} | {len(scores)} | {same[0]['goal']} |"


def cell(value) -> str:
    value = ", ".join(value) if isinstance(value, list) else str(value)
    return " ".join(value.split()).replace("|", "\\|")
