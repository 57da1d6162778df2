"""The queue and its workers, which are stand-ins here (odd_worker.py): what dies, hangs or cannot start costs no answers."""

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CHAPTER

from service import pool as pools
from service.picture import Refused
from service.pool import Pool, Request, Settings

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl and /proc are Linux's")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as Unix has them")


@pytest.fixture(autouse=True)
def odd_worker(monkeypatch):
    monkeypatch.setattr(pools, "WORKER", (str(CHAPTER / "tests" / "odd_worker.py"),))
    monkeypatch.setattr(pools, "PAUSES", (0.05, 0.4))


@contextlib.asynccontextmanager
async def started(folder: Path, model: bytes = b"one", **settings):
    (folder / "model").write_bytes(model)
    pool = Pool(Settings(folder / "model", **settings))
    pool.sizes = []
    pool.batches = pool.sizes.append
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: Pool, *words: bytes) -> list:
    """-> of each picture that is sent, all at a time, its answer or its refusal."""

    async def one(word: bytes):
        status, text = await pool.submit(word)
        assert status == 200
        return json.loads(text)

    return await asyncio.gather(*map(one, words), return_exceptions=True)


async def ask_together(pool: Pool, *words: bytes) -> list:
    """The same, of pictures that gather while the worker is busy, and so come in one batch."""
    busy = asyncio.ensure_future(ask(pool, b"slow"))
    while pool.waiting or not pool.sizes:
        await asyncio.sleep(0.01)
    answers = await ask(pool, *words)
    await busy
    return answers


def statuses(answers: list) -> list[int]:
    return [answer.status if isinstance(answer, Refused) else 200 for answer in answers]


def test_a_picture_that_kills_costs_its_own_answer_alone(tmp_path):
    async def main():
        async with started(tmp_path, timeout=6.0) as pool:
            answers = await ask_together(pool, b"a", b"die", b"b")
            return answers, pool.sizes, pool.restarts, statuses(await ask(pool, b"c"))

    answers, sizes, restarts, later = asyncio.run(asyncio.wait_for(main(), 30))
    assert statuses(answers) == [200, 503, 200] and "twice" in str(answers[1])
    assert answers[0]["batch"] == answers[2]["batch"] == 1, "tried again each alone"
    assert sizes[1] == 3 and restarts == 2 and later == [200]


def test_a_worker_that_hangs_is_noticed_within_the_clients_patience(tmp_path):
    async def main():
        async with started(tmp_path, timeout=3.0) as pool:
            start = time.monotonic()
            answers = await ask_together(pool, b"a", b"hang", b"b")
            assert statuses(answers) == [200, 503, 200] and time.monotonic() - start < 3.5
            os.kill(pool.workers[0].process.pid, signal.SIGSTOP)
            assert statuses(await ask(pool, b"c")) == [200]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_nonsense_from_a_worker_is_as_good_as_its_death(tmp_path):
    async def main():
        async with started(tmp_path) as pool:
            answers = await ask_together(pool, b"a", b"nonsense", b"b")
            assert statuses(answers) == [200, 503, 200] or statuses(answers) == [200, 200, 200]
            assert answers[0]["batch"] == 1 and statuses(await ask(pool, b"c")) == [200]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_worker_killed_while_it_has_nothing_to_do_is_replaced(tmp_path):
    async def main():
        async with started(tmp_path, workers=2) as pool:
            before = [worker.process.pid for worker in pool.workers]
            os.kill(before[0], signal.SIGKILL)
            while len(pool.workers) < 2 or pool.restarts < 1:
                await asyncio.sleep(0.01)
            assert before[0] not in [worker.process.pid for worker in pool.workers]
            assert statuses(await ask(pool, *[b"a"] * 20)) == [200] * 20

    asyncio.run(asyncio.wait_for(main(), 30))


def test_files_of_a_batch_have_a_limit_in_bytes(tmp_path):
    async def main():
        async with started(tmp_path) as pool:
            answers = await ask_together(pool, *[bytes(800_000)] * 8)
            assert statuses(answers) == [200] * 8 and max(pool.sizes) == 3

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_large_picture_gets_a_batch_of_its_own_and_the_others_go_first(tmp_path):
    async def main():
        async with started(tmp_path) as pool:
            *good, large = await ask_together(pool, *[b"a"] * 5, b"large")
            assert large["batch"] == 1 and all(answer["at"] < large["at"] for answer in good)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_of_large_pictures_there_is_at_most_every_other_batch():
    async def main():
        pool = Pool(Settings(Path("none"), max_batch=2))
        future = asyncio.get_running_loop().create_future
        pool.large.extend(Request(b"large", future()) for _ in range(4))
        pool.queue.extend(Request(b"small", future()) for _ in range(6))
        batches = []
        while pool.waiting:
            batches.append([request.data[:1] for request in pool.take()])
        small, large = [b"s", b"s"], [b"l"]
        assert batches == [small, large, small, large, small, large, large]

    asyncio.run(main())


def test_what_is_tried_again_shares_a_batch_with_nothing_before_or_after_it():
    async def main():
        pool, future = Pool(Settings(Path("none"))), asyncio.get_running_loop().create_future
        pool.queue.extend(Request(b"", future(), alone) for alone in (False, False, True, True, False))
        assert [len(pool.take()) for _ in range(4)] == [2, 1, 1, 1] and not pool.waiting

    asyncio.run(main())


# ---- what cannot be started -------------------------------------------------------------------------------------------


def test_a_worker_that_cannot_be_started_is_tried_again_and_again(tmp_path, monkeypatch):
    async def main():
        async with started(tmp_path) as pool:
            real, tries = asyncio.create_subprocess_exec, []

            async def fails(*words, **options):
                tries.append(time.monotonic())
                if len(tries) <= 6:
                    raise OSError(errno.ENOMEM, "Cannot allocate memory")
                return await real(*words, **options)

            monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)
            monkeypatch.setattr(pools, "LONELY_SECONDS", 0.3)
            os.kill(pool.workers[0].process.pid, signal.SIGKILL)
            waiting = asyncio.ensure_future(ask(pool, b"a"))
            while len(tries) < 2:
                await asyncio.sleep(0.01)
            assert pool.alive and not pool.ready
            while len(tries) < 5:
                await asyncio.sleep(0.01)
            assert not pool.alive
            with pytest.raises(pools.CannotStart, match="no worker can be started: Cannot allocate memory"):
                await pool.reload()
            assert statuses(await waiting) == [200] and pool.alive and pool.ready
            gaps = [after - before for before, after in zip(tries[:4], tries[1:4], strict=False)]
            assert gaps[2] > 1.5 * gaps[1] > 2 * gaps[0], "the pauses grow"

    asyncio.run(asyncio.wait_for(main(), 30))


def test_file_descriptors_at_their_limit_end_nothing_for_ever(tmp_path):
    resource = pytest.importorskip("resource")

    async def main():
        async with started(tmp_path, timeout=6.0) as pool:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            os.kill(pool.workers[0].process.pid, signal.SIGKILL)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                with pytest.raises(pools.CannotStart):
                    await pool.reload()
                waiting = asyncio.ensure_future(ask(pool, b"a"))
                await asyncio.sleep(0.5)
                assert not waiting.done() and not pool.workers
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert statuses(await waiting) == [200]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_reload_for_which_there_is_no_thread_is_said_and_tried_another_time(tmp_path, monkeypatch):
    async def main():
        async with started(tmp_path) as pool:
            for error in (RuntimeError("can't start new thread"), OSError(errno.EMFILE, "can't start new thread")):

                async def fails(*_, error=error):
                    raise error

                with monkeypatch.context() as patch:
                    patch.setattr(asyncio, "to_thread", fails)
                    with pytest.raises(pools.CannotStart, match="cannot be read now: can't start new thread"):
                        await pool.reload()
            await pool.reload()
            assert statuses(await ask(pool, b"a")) == [200] and len(pool.workers) == 1

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_model_that_kills_its_worker_is_refused_and_the_old_one_stays(tmp_path):
    async def main():
        async with started(tmp_path) as pool:
            for bad, message in ((b"bad", "a bad model"), (b"die", "the worker died while it opened the model")):
                pool.settings.model.write_bytes(bad)
                with pytest.raises(pools.BadModel, match=message):
                    await pool.reload()
                (answer,) = await ask(pool, b"a")
                assert answer["model"] == "one" and len(pool.workers) == 1

    asyncio.run(asyncio.wait_for(main(), 30))


def test_after_a_reload_the_new_model_alone_answers(tmp_path):
    async def main():
        async with started(tmp_path, workers=2) as pool:
            before = [worker.process for worker in pool.workers]
            pool.settings.model.write_bytes(b"two")
            busy = asyncio.ensure_future(ask(pool, b"slow", b"slow"))
            await asyncio.sleep(0.1)
            await pool.reload()
            answers = await ask(pool, *[b"slow", *[b"a"] * 30])
            assert {answer["model"] for answer in answers} == {"two"} and len(pool.workers) == 2
            assert {answer["model"] for answer in await busy} == {"one"}, "what they had in hand they finish"
            for process in before:
                await asyncio.wait_for(process.wait(), 10)
            for _ in range(100):  # the keeper of a worker that has ended notices it a moment later
                if len(pool.keepers) > 2:
                    await asyncio.sleep(0.05)
            assert len(pool.keepers) == 2
            assert pool.restarts == 0

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_worker_that_was_to_be_replaced_stays_away_once_others_took_over(tmp_path, monkeypatch):
    async def main():
        async with started(tmp_path) as pool:
            real, broken = asyncio.create_subprocess_exec, [True]

            async def fails(*words, **options):
                if broken[0]:
                    raise OSError(errno.EMFILE, "Too many open files")
                return await real(*words, **options)

            monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)
            os.kill(pool.workers[0].process.pid, signal.SIGKILL)
            while pool.workers:
                await asyncio.sleep(0.01)
            broken[0] = False
            pool.settings.model.write_bytes(b"two")
            await pool.reload()
            await asyncio.sleep(0.6)
            assert len(pool.workers) == 1 and len(pool.keepers) == 1
            assert (await ask(pool, b"a"))[0]["model"] == "two"

    asyncio.run(asyncio.wait_for(main(), 30))


# ---- what is given up -------------------------------------------------------------------------------------------------


def test_a_request_that_is_given_up_keeps_neither_bytes_nor_place():
    async def main():
        pool = Pool(Settings(Path("none"), timeout=0.1, max_queue=3))
        asked = [asyncio.ensure_future(pool.submit(bytes(1000))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="too many requests wait") as full:
            await pool.submit(b"a")
        assert full.value.status == 429
        kept = [*pool.queue]
        pool.large.append(pool.queue.pop())
        asked[0].cancel()  # its client went away
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(result, "status", 0) for result in results] == [0, 503, 503]
        assert pool.waiting == 0 and not any(request.data for request in kept)

    asyncio.run(main())


# ---- the real worker --------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.parametrize("opening", ["time.sleep(60)", "ctypes.PyDLL(None).sleep(60)"], ids=["python", "in a library"])
def test_a_worker_ends_with_a_killed_server_also_while_it_opens_the_model(tmp_path, opening):
    """The second way of opening lets no other thread of Python run, as some libraries do. The pipe stays open in another
    process, so that only the kernel can tell."""
    stub = f"import ctypes, time\nfrom service import engine, worker\nengine.open_onnx = lambda *_: {opening}\nworker.main()"
    options = "{'threads': 1, 'max_pixels': 9, 'provider': 'cpu', 'parent': os.getpid()}"
    server = (
        "import json, os, struct, subprocess, sys, time\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {stub!r}, json.dumps({options})], stdin=subprocess.PIPE)\n"
        "worker.stdin.write(struct.pack('<II', 1, 5) + b'model'); worker.stdin.flush()\n"
        "print(worker.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", server], cwd=CHAPTER, stdout=subprocess.PIPE, text=True)
    with process:
        pid = int(process.stdout.readline())
        time.sleep(0.5)
        process.kill()
    deadline = time.time() + 5
    path = Path(f"/proc/{pid}/cmdline")
    while path.exists() and path.read_bytes():  # no zombie either
        assert time.time() < deadline
        time.sleep(0.02)


def test_a_worker_ends_where_its_input_does_whatever_it_is_doing(tmp_path):
    """As on systems that have no prctl."""
    stub = "import time\nfrom service import engine, worker\nengine.open_onnx = lambda *_: time.sleep(9)\n"
    stub += "worker.end_with = print\nworker.main()"
    options = json.dumps({"threads": 1, "max_pixels": 9, "provider": "cpu", "parent": 0})
    with subprocess.Popen([sys.executable, "-c", stub, options], cwd=CHAPTER, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"\1\0\0\0\5\0\0\0model")
        process.stdin.flush()
        time.sleep(0.3)
        process.stdin.close()
        assert process.wait(5) == 0


def test_a_worker_whose_server_is_gone_already_does_not_begin():
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux alone")
    assert ctypes.CDLL(None).prctl
    done = subprocess.run(
        [sys.executable, "-m", "service.worker", json.dumps({"parent": 1})], cwd=CHAPTER, input=b"", timeout=20
    )
    assert done.returncode == 1
