"""Two training processes as torchrun would start them, but forked from one that has imported torch: in no time."""

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch

import train

HERE = Path(__file__).parent


def run_one(words: list[str], run: Path, here: dict, hook) -> None:
    """train.py in this process, its output in a file; ends with exit code 0 or 1."""
    code = 1
    try:
        os.environ.update({name: str(value) for name, value in here.items()})
        output = os.open(run.with_suffix(f".{here['RANK']}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        signal.alarm(120)
        if hook:
            hook(here["RANK"])
        train.main([*words, "--run", str(run)])
        code = 0
    except SystemExit as why:
        print(why, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def train_on_two(words, run: Path, restarts: int = 0, hook=None, may_fail: bool = False) -> str:
    """-> what the first process said. `hook(rank)`, a function of this file, is called in each before it begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["two_processes", "matplotlib.figure", "tensorboardX"])
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{HERE.parent}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    here |= {"TORCHELASTIC_RESTART_COUNT": restarts, "TORCHELASTIC_RUN_ID": f"launch of {run.name}"}
    words, processes = [str(word) for word in words], []
    for rank in range(2):
        job = (words, run, here | {"RANK": rank, "LOCAL_RANK": rank}, hook)
        processes.append(context.Process(target=run_one, args=job))
        processes[-1].start()
    del os.environ["PYTHONPATH"]
    for process in processes:
        process.join()
    said = run.with_suffix(".0.log").read_text()
    assert may_fail or [process.exitcode for process in processes] == [0, 0], said
    return said


def die_in_the_second_epoch(rank: int) -> None:
    real = train.train_one_epoch

    def train_or_die(*words):
        if rank == 1 and words[2].epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words)

    train.train_one_epoch = train_or_die


def compare_weights(rank: int) -> None:
    """Ends the run after an epoch if the two processes have not the same weights."""
    report, distribute, models = train.report, train.distribute, []

    def check(*words):
        weights = torch.cat([p.detach().flatten() for p in models[0].parameters()])
        both = [torch.empty_like(weights) for _ in range(2)]
        torch.distributed.all_gather(both, weights)
        assert torch.equal(*both), "the weights differ"
        return report(*words)

    def keep(*words):
        models.append(distribute(*words))
        return models[0]

    train.report, train.distribute = check, keep
