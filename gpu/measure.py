"""Measures a GPU: every chapter's CUDA paths, speeds and tables, in order of worth, for as long as there is time.

    python gpu/measure.py --minutes 25             # on the GPU; needs PyTorch alone, skips what lacks a package
    python gpu/measure.py --minutes 25 --resume    # goes on with the newest report of this GPU
    python gpu/measure.py --only bench,speed       # the steps whose names have one of these words
    python gpu/measure.py --device cpu --dry       # the same plan on tiny sizes, without a GPU: does it run?
    python gpu/measure.py --list                   # the steps, and how long each takes

After each step gpu/report/GPU-NAME.json and .md are written: what ran, with which command, and what it found. A step that was
ended in the middle begins again with --resume, a training goes on. Data are looked for in each chapter's data/, or all in
--data-root: cifar-10-batches-py or cifar-10-python.tar.gz, weibo_senti_100k.csv, cmn.txt. Nothing is downloaded.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pages
import plan
import steps
from steps import GPU, Setting, Step


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="no step begins that would end later (default: 25)")
    parser.add_argument("--only", metavar="WORDS", help="steps whose name has one of these words, with commas between")
    parser.add_argument("--resume", action="store_true", help="go on with the newest report of this GPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--dry", action="store_true", help="tiny sizes; the report goes to gpu/work/dry-gpu")
    parser.add_argument("--list", action="store_true", help="print the steps instead")
    parser.add_argument("--plan", choices=("gpu", "page"), default="gpu", help="page: the steps of BENCHMARKS.md")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="where all data lie (default: each chapter's data/)"
    )
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels to unpack for the steps, not to install")
    parser.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="for the steps; may have {chapter} in it"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", default=GPU / "report", help="default: gpu/report")
    return parser.parse_args(argv)


def chosen(all_steps: list[Step], only: str | None) -> list[Step]:
    words = [word for word in (only or "").split(",") if word]
    found = [step for step in all_steps if not words or any(word in step.name for word in words)]
    if not found:
        raise SystemExit(f"error: --only {only}: no step has such a name; --list prints them")
    return found


def setting_of(args: argparse.Namespace) -> Setting:
    work = GPU / "work" / ("dry-" * args.dry + args.plan)
    python = os.path.abspath(args.python) if os.path.dirname(args.python) else args.python  # steps run in other folders
    setting = Setting(args.device, work, python, args.data_root and args.data_root.resolve(), dry=args.dry)
    if args.wheels:
        if not args.wheels.is_dir():
            raise SystemExit(f"error: --wheels {args.wheels}: no such folder")
        names = steps.unpack(args.wheels, GPU / "work" / "site")
        setting.path = str(GPU / "work" / "site")
        print(f"unpacked {len(names)} wheels")
    return setting


def machine_of(setting: Setting, lacks: dict[str, list[str]]) -> dict:
    """-> what machine.py says; ends the program if no chapter has PyTorch, or if there is no GPU."""
    able = [
        chapter for chapter, names in lacks.items() if not any(n == "torch" or n.startswith("Python") for n in names)
    ]
    if not able:
        raise SystemExit(f"error: no PyTorch in {setting.python}")
    command = [setting.python.replace("{chapter}", able[0]), str(GPU / "machine.py"), setting.device]
    command += ["256"] if setting.dry else []
    done = subprocess.run(command, capture_output=True, text=True, env=setting.environment())
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"error: {command[0]} failed")
    return json.loads(done.stdout.splitlines()[-1])


def open_report(folder: Path, name: str, resume: bool) -> tuple[Path, dict]:
    """-> the JSON file of this report, and what it holds: with `resume` the newest of that name, else a new one."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    numbers = [1, *range(2, 1000)]
    files = [folder / (f"{stem}.json" if n == 1 else f"{stem}-{n}.json") for n in numbers]
    there = [file for file in files if file.exists()]
    if resume and there:
        return there[-1], json.loads(there[-1].read_text("utf-8"))
    return next(file for file in files if not file.exists()), {}


def measure(args: argparse.Namespace, wanted: list[Step], end: float) -> Path:
    """Runs the steps while there is time -> the report."""
    setting = setting_of(args)
    lacks = steps.missing(setting, wanted)
    for chapter, names in lacks.items():
        if names:
            print(f"{chapter} lacks {', '.join(names)}: the steps that need them are skipped")
    machine = machine_of(setting, lacks)
    path, found = open_report(setting.work if args.dry else args.report, machine["name"], args.resume)
    if not args.resume:
        steps.forget(setting)
    done = found.get("steps", {})
    found = {"date": date.today().isoformat(), "dry": args.dry, "machine": machine, "lacks": lacks, "steps": done}
    pages.write(path, found)
    for number, step in enumerate(wanted, 1):
        if done.get(step.name, {}).get("status") == "done":
            continue
        if step.after and done.get(step.after, {}).get("status") != "done":
            done[step.name] = {"status": "skipped", "why": f"{step.after} is not done"}
        else:
            done[step.name] = one(setting, step, lacks[step.chapter], end - time.monotonic())
        pages.write(path, found)
        say(number, len(wanted), step, done[step.name])
    return path


def one(setting: Setting, step: Step, lacks: list[str], left: float) -> dict:
    """-> the record of a step that ran, or why it did not; `left`: seconds."""
    minutes = 0.2 if setting.dry else step.minutes
    if why := steps.why_not(setting, step, lacks):
        return {"status": "skipped", "why": why}
    if 60 * minutes > left:
        return {"status": "skipped", "why": f"takes about {minutes:g} min, and {max(0, left) / 60:.1f} are left"}
    limit = max(steps.LEAST_DRY if setting.dry else steps.LEAST, 60 * steps.LIMIT * minutes)
    return steps.run(setting, step, min(limit, left)) | {"goal": step.goal, "group": step.group}


def say(number: int, count: int, step: Step, record: dict) -> None:
    what = record.get("why") or pages.words(record["figures"])
    seconds = f"{record['seconds']:.0f} s" if "seconds" in record else ""
    print(
        f"{number:>3}/{count}  {step.name:<36}{record['status']:<12}{seconds:>7}  {what.splitlines()[-1][:150] if what else ''}"
    )


def main(argv=None) -> None:
    end = time.monotonic()
    args = parse(argv)
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; --resume goes on"))
    whole = plan.plan() if args.plan == "gpu" else plan.page()
    wanted = chosen(plan.once(whole) if args.dry else whole, args.only)
    if args.list:
        for step in wanted:
            print(f"{step.minutes:>4g} min  {step.name:<36}{step.data}")
        return print(f"{sum(step.minutes for step in wanted):>4g} min in {len(wanted)} steps")
    try:
        path = measure(args, wanted, end + 60 * args.minutes)
    except KeyboardInterrupt:
        raise SystemExit("stopped; --resume goes on") from None
    print(f"wrote {path} and {path.with_suffix('.md').name}")
    records = json.loads(path.read_text("utf-8"))["steps"].values()
    if any(record["status"] in ("failed", "out of time") for record in records):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
