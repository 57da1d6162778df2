"""Writes BENCHMARKS.md and BENCHMARKS.zh-CN.md from the reports of measure.py --plan page: python gpu/benchmarks.py [FOLDER]

FOLDER (default: gpu/report/page) holds a JSON file a machine. The newest is the page; all are rows of the table of machines.
"""

import json
import sys
from pathlib import Path

from pages import cell
from steps import GPU, ROOT, write_atomic

NAMES = ("texts", "pictures", "pairs", "tokens")  # of what a bench counts a second

# English, Chinese; {date}, {cpu} and so on are filled in
TITLE = ("# Benchmarks", "# 性能测试")
LINK = ("**English** · [中文](BENCHMARKS.zh-CN.md)", "[English](BENCHMARKS.md) · **中文**")
INTRO = (
    "How fast each chapter trains, beside the plain loop of most tutorials or of the course: the same network, in float32, "
    "eager, batch after batch. Both are measured in turns, in one run; the figures are medians. Utilisation is the share of "
    "the speed of a large matrix product in the same precision.",
    "各章训练得有多快，与多数教程（或课程原来）的普通循环对比：同样的网络，float32，即时执行，逐批训练。"
    "两者在同一次运行中轮流测量，取中位数。利用率是实际速度与同一精度下大矩阵乘法速度之比。",
)
WHERE = (
    "Measured on {date}, on {cpu} ({cores} cores; {flags}), torch {torch}, by this command:",
    "测量日期 {date}，机器为 {cpu}（{cores} 核；{flags}），torch {torch}，命令如下：",
)
TRAINING = ("## Training", "## 训练")
COLUMNS = (
    "| chapter | network | precision | batch | ours | plain | times | utilisation | command |",
    "| 章 | 网络 | 精度 | 批量大小 | 本项目 | 普通循环 | 倍数 | 利用率 | 命令 |",
)
UNITS = (
    {"pictures": "pictures/s", "pairs": "pairs/s", "texts": "texts/s", "tokens": "tokens/s"},
    {"pictures": "张/秒", "pairs": "对/秒", "texts": "条/秒", "tokens": "词元/秒"},
)
DEPLOYED = ("## Deployment (chapter 13)", "## 部署（第 13 章）")
DEPLOYED_COLUMNS = (
    "| format | batch | median, ms | 95th percentile, ms | pictures/s | times eager |",
    "| 格式 | 批量大小 | 中位数（毫秒） | 第 95 百分位（毫秒） | 张/秒 | eager 的倍数 |",
)
PRECISION = ("## What `--precision auto` takes", "## `--precision auto` 选什么")
PRECISION_INTRO = (
    "`--precision auto` measures a small matrix product in both precisions and takes bf16 where it is more than 1.1 times as "
    "fast. Without AVX512-BF16 or AMX a CPU only emulates bf16. The table's speeds are those of a large product, "
    "or of the small one where bf16 is emulated.",
    "`--precision auto` 用两种精度各测一次小矩阵乘法，bf16 的速度超过 fp32 的 1.1 倍才选 bf16。"
    "没有 AVX512-BF16 或 AMX 的 CPU 只能模拟 bf16。表中的速度取自大矩阵乘法；只能模拟 bf16 时，bf16 取自小矩阵乘法。",
)
PRECISION_COLUMNS = (
    "| machine | cores | instructions | fp32, TFLOP/s | bf16, TFLOP/s | bf16 over fp32 | taken |",
    "| 机器 | 核数 | 指令集 | fp32（TFLOP/s） | bf16（TFLOP/s） | bf16 与 fp32 之比 | 选择 |",
)
COMMAND = "nox -s bench -- --page"
NOT_MEASURED = ("Not measured: {}.", "未测量：{}。")


def speeds(figures: dict) -> tuple[str, float, float, float]:
    """-> what is counted, ours and the plain loop's number a second, and their ratio, from a chapter's --bench."""
    for unit in NAMES:
        other = next((word for word in ("plain", "course") if f"{word}_{unit}_per_s" in figures), None)
        if other:
            ours, plain = figures[f"{unit}_per_s"], figures[f"{other}_{unit}_per_s"]
            return unit, ours, plain, ours / plain
    raise KeyError("no speed beside a plain loop's")


def training_rows(records: dict, language: int) -> list[str]:
    rows = []
    for name, record in sorted(records.items(), key=lambda item: item[0][:4]):  # a step that was repeated comes last
        figures = record["figures"]
        if "utilisation" in figures:
            unit, ours, plain, times = speeds(figures)
            what = f"{int(name[2:4])} | {figures['arch']} | {figures['precision']} | {figures['batch_size']}"
            speed = f"{ours:,g} {UNITS[language][unit]} | {plain:,g} | {times:.2f} | {figures['utilisation']:.1%}"
            rows.append(f"| {what} | {speed} | `{record['commands'][0]}` |")
    return rows


def deployed_rows(records: dict) -> list[str]:
    rows = [row for record in records.values() for row in record["figures"].get("rows", []) if "format" in row]
    keys = ("format", "batch", "p50_ms", "p95_ms", "per_s", "over_eager")
    return ["| " + " | ".join(f"{row[key]:,g}" if key != "format" else row[key] for key in keys) + " |" for row in rows]


def machine_rows(reports: list[dict]) -> list[str]:
    rows = []
    for found in reports:
        machine = found["machine"]
        done = [record for record in found["steps"].values() if record["status"] == "done"]
        auto = [record["figures"] for record in done if "--precision auto" in record["commands"][0]]
        taken = ", ".join(sorted({figures["precision"] for figures in auto}))
        products = machine["products"]
        about = f"{cell(machine['name'])} | {machine['cores']} | {', '.join(machine['flags'])}"
        rows.append(f"| {about} | {products['fp32']} | {products['bf16']} | {machine['bf16_over_fp32']} | {taken} |")
    return rows


def page(reports: list[dict], language: int) -> str:
    """`reports`: the newest first. `language`: 0 English, 1 Chinese; both pages have the same numbers and commands."""

    def rule(header: str) -> str:
        return "|" + "---|" * (header.count("|") - 1)

    newest = reports[0]
    machine = newest["machine"] | {"date": newest["date"], "flags": ", ".join(newest["machine"]["flags"])}
    done = {name: record for name, record in newest["steps"].items() if record["status"] == "done"}
    lines = [TITLE[language], "", LINK[language], "", INTRO[language], "", WHERE[language].format(**machine), ""]
    lines += ["```bash", COMMAND, "```", "", TRAINING[language], "", COLUMNS[language], rule(COLUMNS[language])]
    lines += [*training_rows(done, language), ""]
    if absent := [f"`{name}`" for name in newest["steps"] if name not in done]:
        lines += [NOT_MEASURED[language].format(", ".join(absent)), ""]
    if rows := deployed_rows(done):
        commands = [record["commands"][0] for record in done.values() if "rows" in record["figures"]]
        lines += [DEPLOYED[language], "", *(f"`{command}`" for command in commands), "", DEPLOYED_COLUMNS[language]]
        lines += [rule(DEPLOYED_COLUMNS[language]), *rows, ""]
    lines += [PRECISION[language], "", PRECISION_INTRO[language], "", PRECISION_COLUMNS[language]]
    return "\n".join([*lines, rule(PRECISION_COLUMNS[language]), *machine_rows(reports)]) + "\n"


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    folder = Path(words[0]) if words else GPU / "report" / "page"
    target = Path(words[1]) if len(words) > 1 else ROOT
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    if not reports:
        raise SystemExit(f"error: no report in {folder}; `nox -s bench -- --page` measures")
    if target == ROOT and any(found["dry"] for found in reports):
        raise SystemExit(f"error: {folder} has a dry run's report; name a folder to write its page to")
    reports.sort(key=lambda found: found["date"], reverse=True)
    for language, name in enumerate(("BENCHMARKS.md", "BENCHMARKS.zh-CN.md")):
        write_atomic(target / name, page(reports, language))
    print(f"wrote {target / 'BENCHMARKS.md'} and BENCHMARKS.zh-CN.md, of {len(reports)} machines")


if __name__ == "__main__":
    main()
