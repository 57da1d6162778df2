"""What a finished run and its test found, as one line of JSON: python run_figures.py RUN

epochs and seconds (of training alone, from last.pt), the precision that was taken, and the numbers of test.json.
"""

import json
import sys
from pathlib import Path

import torch

SCORES = ("accuracy", "bleu_all_references", "bleu", "macro_f1", "cycle_error")


def main() -> None:
    run = Path(sys.argv[1])
    last = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    args = json.loads((run / "args.json").read_text("utf-8"))
    found = {"epochs": last["epoch"], "train_s": round(last["seconds"], 2) if "seconds" in last else None}
    found |= {"precision": args.get("precision"), "seed": args.get("seed"), "data": Path(str(args.get("data"))).name}
    if (run / "test.json").exists():
        tested = json.loads((run / "test.json").read_text("utf-8"))
        found |= {name: value for name, value in tested.items() if isinstance(value, (int, float)) and name != "tta"}
    score = next((name for name in SCORES if name in found), None)
    print(json.dumps(found | ({"score": found[score], "score_is": score} if score else {})))


if __name__ == "__main__":
    main()
