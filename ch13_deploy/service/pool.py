"""The queue and the workers behind it: dynamic batches, a bound on waiting, restarts, and a new model without a pause.

The server (app.py) speaks HTTP and touches no picture. Each worker is a process that takes from the queue whatever has
gathered while it was busy, up to a batch: alone a request waits for nobody, under load the batches grow by themselves. A worker
that dies or hangs is replaced, and what it held is tried once more, each request alone: if one picture kills workers, its
neighbours are answered all the same, and its own client is told. A picture too large to share a batch gets one of its own, of
which there is at most every other.
"""

import asyncio
import errno
import hashlib
import json
import logging
import os
import struct
import sys
import time
from asyncio.subprocess import PIPE
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from service.engine import BadModel
from service.picture import MAX_PIXELS, Refused

log = logging.getLogger("serve")
WORKER = ("-m", "service.worker")
CHAPTER = Path(__file__).parents[1]
START_SECONDS = 60.0
BATCH_BYTES = 2_000_000  # of a batch's files: one that has more takes no further one
PAUSES = (0.25, 10.0)  # seconds before a worker that could not be started is started again: the first, and the longest
LONELY_SECONDS = 60.0  # without a living worker for so long, a service is no longer healthy


@dataclass
class Settings:
    """What may be chosen about a service; serve.py has a flag for each."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 1  # of each worker
    provider: str = "cpu"
    max_batch: int = 16
    batch_wait: float = 0.0  # seconds to wait for a fuller batch
    max_queue: int = 256  # requests
    max_body: int = 10_000_000  # bytes
    max_memory: int = 200_000_000  # bytes of all bodies held at a time
    max_pixels: int = MAX_PIXELS  # of a picture, and of a batch
    timeout: float = 10.0  # seconds: to send a request, and again to answer it
    idle: float = 5.0  # seconds without a byte in the middle of a request
    max_idle: int = 256  # connections that are kept and send nothing
    drain: float = 1.0  # seconds between saying "not ready" and taking no more connections
    allowed_hosts: tuple[str, ...] = ()  # names in Host, beside those of this machine's that it listens on
    token: str | None = None
    access_log: bool = True
    docs: bool = False

    @property
    def hang_seconds(self) -> float:
        """A worker that takes longer for a batch hangs. A third of a client's patience: one part to notice it, one to start
        another worker, one for its answer."""
        return self.timeout / 3


class CannotStart(Exception):
    """No process can be started now: memory, processes or file descriptors are short. The message is one line."""


SHORTAGES = (OSError, RuntimeError, MemoryError)  # what Python raises where the system has no more of something


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass
class Model:
    """A model file's bytes, read once: a worker started later gets the same ones, whatever has become of the file."""

    data: bytes
    version: str  # the first 12 digits of the file's SHA-256
    name: str = ""
    meta: dict | None = None

    @classmethod
    def read(cls, path: Path) -> "Model":
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise BadModel(f"{path}: {error.strerror}; `python export.py --to onnx` makes one") from None
        except OSError as error:
            kind = CannotStart if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) else BadModel
            raise kind(f"{path}: {error.strerror}") from None
        return cls(data, hashlib.sha256(data).hexdigest()[:12], path.name)

    def about(self) -> dict:
        """What /health and the start line say of it."""
        meta = self.meta or {}
        return {"model": self.name, "version": self.version, "arch": meta.get("arch"), "source": meta.get("source")}


@dataclass(eq=False)
class Request:
    data: bytes
    answer: asyncio.Future
    alone: bool = False  # it was in a worker that died, and gets a batch of its own


class Worker:
    """A worker process, as seen from the server."""

    def __init__(self, process: asyncio.subprocess.Process, model: Model):
        self.process, self.model, self.retired = process, model, False

    @classmethod
    async def start(cls, model: Model, settings: Settings) -> "Worker":
        """-> a worker that has opened `model`. Raises BadModel, or CannotStart."""
        options = {name: getattr(settings, name) for name in ("threads", "max_pixels", "provider")}
        command = (sys.executable, *WORKER, json.dumps(options | {"parent": os.getpid()}))
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=CHAPTER)
        except SHORTAGES as error:
            raise CannotStart(f"no worker can be started: {reason(error)}") from None
        worker = cls(process, model)
        try:
            said = await asyncio.wait_for(worker.ask([model.data]), START_SECONDS)
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError):
            said = {"error": "the worker died while it opened the model"}
        except BaseException:
            worker.kill()
            raise
        if "error" in said:
            worker.kill()
            raise BadModel(said["error"])
        model.meta = said["meta"]
        return worker

    async def ask(self, parts: list[bytes]):
        """Sends a frame -> the worker's answer to it. IncompleteReadError or OSError if the worker dies."""
        pipe = self.process.stdin
        pipe.writelines([struct.pack(f"<I{len(parts)}I", len(parts), *map(len, parts)), *parts])
        await pipe.drain()
        (length,) = struct.unpack("<I", await self.process.stdout.readexactly(4))
        return json.loads(await self.process.stdout.readexactly(length))

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class Pool:
    """Answers pictures with `settings.workers` workers."""

    def __init__(self, settings: Settings):
        self.settings, self.some = settings, asyncio.Event()
        self.queue: deque[Request] = deque()
        self.large: deque[Request] = deque()  # those whose pictures are too large to share a batch
        self.large_next = False
        self.workers: list[Worker] = []  # those that take requests
        self.lonely_since = time.monotonic()  # when the last of them went, if there are none
        self.keepers: set[asyncio.Task] = set()
        self.draining, self.closed, self.restarts, self.busy_seconds = False, False, 0, 0.0
        self.batches = lambda size: None
        self.reloading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return bool(self.workers) and not self.draining

    @property
    def alive(self) -> bool:
        return bool(self.workers) or time.monotonic() - self.lonely_since < LONELY_SECONDS

    @property
    def waiting(self) -> int:
        return len(self.queue) + len(self.large)

    # ---- workers ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the model in all workers. Raises BadModel or CannotStart."""
        self.model = Model.read(self.settings.model)
        self.employ(await self.hire(self.model))

    async def hire(self, model: Model) -> list[Worker]:
        """-> as many workers as there should be, all with `model` open; or, if one cannot open it, none. Raises BadModel or
        CannotStart."""
        starts = (Worker.start(model, self.settings) for _ in range(self.settings.workers))
        results = await asyncio.gather(*starts, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for worker in results if failures else ():
            if isinstance(worker, Worker):
                worker.kill()
        if failures:
            raise failures[0]
        return results

    def employ(self, workers: list[Worker]) -> None:
        for worker in workers:
            task = asyncio.create_task(self.keep(worker))
            self.keepers.add(task)
            task.add_done_callback(self.keepers.discard)
        self.workers += workers

    async def reload(self) -> Model:
        """Opens the model file again, beside the workers of the old one, which serve until the new ones do. Raises BadModel or
        CannotStart."""
        async with self.reloading:
            try:
                model = await asyncio.to_thread(Model.read, self.settings.model)
            except SHORTAGES as error:  # of a thread, or of what Python imports for its first
                raise CannotStart(f"the model cannot be read now: {reason(error)}") from None
            fresh = await self.hire(model)
            self.model, before = model, self.workers
            self.workers = []
            self.employ(fresh)
            self.retire(before)
            log.info("model %s is served now", model.version)
            return model

    def retire(self, workers: list[Worker]) -> None:
        """Lets workers finish what they have in hand, and go."""
        for worker in workers:
            worker.retired = True
        self.some.set()

    async def close(self) -> None:
        self.closed = True
        self.retire(self.workers)
        keepers = list(self.keepers)
        if keepers:
            _, late = await asyncio.wait(keepers, timeout=self.settings.hang_seconds)
            for keeper in late:
                keeper.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for worker in self.workers:
            worker.kill()

    async def keep(self, worker: Worker) -> None:
        """Lets a worker work until it is retired; replaces it when it dies."""
        while True:
            work = asyncio.create_task(self.work(worker))
            death = asyncio.create_task(worker.process.wait())
            death.add_done_callback(lambda _, work=work: work.cancel())  # also while it waits for something to do
            try:
                await asyncio.wait([work])
                worker.process.stdin.close()
                if worker.retired:
                    await asyncio.wait([death], timeout=self.settings.hang_seconds)
                    return
            finally:
                worker.kill()
            self.workers.remove(worker)
            self.lonely_since = time.monotonic()
            self.restarts += 1
            log.warning("worker %d died; starting another", worker.process.pid)
            if (worker := await self.replacement(worker.model)) is None:
                return
            self.workers.append(worker)

    async def replacement(self, model: Model) -> Worker | None:
        """-> another worker with the same model. The model could be opened before, so if it cannot be now, memory or files are
        short: it is tried again, for ever. None if a new model took over meanwhile, or the pool was closed."""
        pause, longest = PAUSES
        while self.model is model and not self.closed:
            try:
                worker = await Worker.start(model, self.settings)
            except (BadModel, CannotStart) as why:
                log.error("%s; trying again in %.2g s", why, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            if self.model is model and not self.closed:
                return worker
            worker.kill()
        return None

    # ---- requests -----------------------------------------------------------------------------------------------------

    async def work(self, worker: Worker) -> None:
        """Batch after batch, until the worker is retired, hangs or dies."""
        while batch := await self.next_batch(worker):
            self.batches(len(batch))
            start = time.perf_counter()
            try:
                ask = worker.ask([request.data for request in batch])
                answers = await asyncio.wait_for(ask, self.settings.hang_seconds)
                if len(answers) != len(batch):
                    raise ValueError("an answer is lacking")
            except (Exception, asyncio.CancelledError):  # whatever it is, the worker goes and nothing is lost
                return self.try_again(batch)
            finally:
                self.busy_seconds += time.perf_counter() - start
            for request, answer in zip(batch, answers, strict=True):
                if request.answer.done():
                    continue
                if answer is None:  # too many pixels beside the others
                    self.large.append(request)
                    self.some.set()
                else:
                    request.answer.set_result(answer)

    def try_again(self, batch: list[Request]) -> None:
        for request in reversed(batch):
            if request.answer.done():
                continue
            if request.alone:
                request.answer.set_exception(Refused(503, "the model worker died or hung over this picture, twice"))
                continue
            request.alone = True
            self.queue.appendleft(request)
        self.some.set()

    async def next_batch(self, worker: Worker) -> list[Request]:
        """-> the requests that wait, at most a batch of them; [] once the worker is retired."""
        while not worker.retired:
            if not self.waiting:
                self.some.clear()
                await self.some.wait()
                continue
            if self.settings.batch_wait and len(self.queue) < self.settings.max_batch:
                await asyncio.sleep(self.settings.batch_wait)
            if batch := self.take():
                return batch
        return []

    def take(self) -> list[Request]:
        """-> a batch off the queue; or a large picture, if the last one was none or nothing else waits."""
        self.large_next = bool(self.large) and (self.large_next or not self.queue)
        if self.large_next:
            self.large_next = False
            return [self.large.popleft()]
        self.large_next = True
        batch, size = [], 0
        while self.queue and len(batch) < self.settings.max_batch and size < BATCH_BYTES:
            if batch and self.queue[0].alone:
                break
            request = self.queue.popleft()
            batch.append(request)
            size += len(request.data)
            if request.alone:
                break
        return batch

    async def submit(self, data: bytes) -> tuple[int, str]:
        """A picture file's bytes -> HTTP status and JSON. Raises Refused: 429 when too many wait, 503 when it took too long."""
        if self.waiting >= self.settings.max_queue:
            raise Refused(429, "too many requests wait already; try again in a second")
        request = Request(data, asyncio.get_running_loop().create_future())
        self.queue.append(request)
        self.some.set()
        try:
            return await asyncio.wait_for(request.answer, self.settings.timeout)
        except asyncio.TimeoutError:
            self.forget(request)
            raise Refused(503, f"no answer within {self.settings.timeout:g} s; try again later") from None
        except asyncio.CancelledError:
            self.forget(request)
            raise

    def forget(self, request: Request) -> None:
        """Takes back what nobody waits for any more: its place, and its bytes."""
        request.data = b""
        for line in (self.queue, self.large):
            if request in line:
                line.remove(request)
