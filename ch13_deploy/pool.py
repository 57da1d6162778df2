"""The queue and the workers behind it: dynamic batches, a bound on waiting, restarts, and a new model without a pause.

The server (app.py) speaks HTTP and touches no picture. Each worker is a process that takes from the queue whatever has
gathered while it was busy, up to a batch: alone a request waits for nobody, under load the batches grow by themselves. A worker
that dies or hangs is replaced, and what it held is tried once more, each request alone: if one picture kills workers, its
neighbours are answered all the same, and its own client is told.
"""

import asyncio
import hashlib
import json
import logging
import struct
import sys
from asyncio.subprocess import PIPE
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from engine import BadModel
from picture import MAX_PIXELS, Refused

log = logging.getLogger("serve")
WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0


@dataclass
class Settings:
    """What may be chosen about a service; serve.py has a flag for each."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 1  # of each worker
    max_batch: int = 16
    batch_wait: float = 0.0  # seconds to wait for a fuller batch
    max_queue: int = 256  # requests
    max_body: int = 10_000_000  # bytes
    max_memory: int = 200_000_000  # bytes of all bodies held at a time
    max_pixels: int = MAX_PIXELS
    timeout: float = 10.0  # seconds: to send a request, and again to answer it
    drain: float = 1.0  # seconds between saying "not ready" and taking no more connections
    token: str | None = None
    access_log: bool = True


@dataclass
class Model:
    """A model file's bytes, read once: a worker started later gets the same ones, whatever has become of the file."""

    data: bytes
    version: str
    meta: dict | None = None

    @classmethod
    def read(cls, path: Path) -> "Model":
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadModel(f"{path}: {error.strerror}; `python export.py --to onnx` makes one") from None
        return cls(data, hashlib.sha256(data).hexdigest()[:12])


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
        """-> a worker that has opened `model`. Raises BadModel."""
        options = json.dumps({"threads": settings.threads, "max_pixels": settings.max_pixels})
        command = (sys.executable, WORKER, options)
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE), model)
        try:
            said = await asyncio.wait_for(worker.ask([model.data]), START_SECONDS)
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError):
            said = {"error": "the worker died while it opened the model"}
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
        self.settings, self.queue, self.some = settings, deque(), asyncio.Event()
        self.workers: list[Worker] = []  # those that take requests
        self.keepers: set[asyncio.Task] = set()
        self.draining, self.closed, self.restarts, self.batches = False, False, 0, lambda size: None
        self.reloading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return bool(self.workers) and not self.draining

    async def start(self) -> None:
        """Opens the model in all workers. Raises BadModel."""
        self.model = Model.read(self.settings.model)
        self.employ(await self.hire(self.model))

    async def hire(self, model: Model) -> list[Worker]:
        """-> as many workers as there should be, all with `model` open; or, if one cannot open it, none. Raises BadModel."""
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
        """Opens the model file again, beside the workers of the old one, which serve until the new ones do. Raises BadModel."""
        async with self.reloading:
            model = await asyncio.to_thread(Model.read, self.settings.model)
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
            await asyncio.wait(keepers, timeout=self.settings.timeout)
        for worker in self.workers:
            worker.kill()

    async def keep(self, worker: Worker) -> None:
        """Lets a worker work until it is retired; replaces it when it dies."""
        while True:
            work = asyncio.create_task(self.work(worker))
            death = asyncio.create_task(worker.process.wait())
            death.add_done_callback(lambda _, work=work: work.cancel())  # also while it waits for something to do
            await asyncio.wait([work])
            worker.process.stdin.close()
            if worker.retired:
                await asyncio.wait([death], timeout=self.settings.timeout)
                return worker.kill()
            worker.kill()
            self.workers.remove(worker)
            self.restarts += 1
            log.warning("worker %d died; starting another", worker.process.pid)
            worker = await self.replacement()
            if worker.model is not self.model or self.closed:  # meanwhile others took over, or all is answered
                return worker.kill()
            self.workers.append(worker)

    async def replacement(self) -> Worker:
        """-> another worker with the same model. That it can be opened is known; if not now, memory is short, perhaps."""
        model, pause = self.model, 0.5
        while True:
            try:
                return await Worker.start(model, self.settings)
            except BadModel as why:
                log.error("no worker can be started (%s); trying again in %.1f s", why, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)

    async def work(self, worker: Worker) -> None:
        """Batch after batch, until the worker is retired, hangs or dies."""
        while batch := await self.next_batch(worker):
            self.batches(len(batch))
            try:
                answers = await asyncio.wait_for(worker.ask([r.data for r in batch]), self.settings.timeout)
            except (asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.CancelledError, OSError):
                return self.try_again(batch)
            for request, answer in zip(batch, answers, strict=True):
                if not request.answer.done():
                    request.answer.set_result(answer)

    def try_again(self, batch: list[Request]) -> None:
        for request in reversed(batch):
            if request.alone and not request.answer.done():
                request.answer.set_exception(Refused(503, "the model worker died over this picture, twice"))
            request.alone = True
            self.queue.appendleft(request)
        self.some.set()

    async def next_batch(self, worker: Worker) -> list[Request]:
        """-> the requests that wait, at most a batch of them; [] once the worker is retired."""
        while not worker.retired:
            while self.queue and self.queue[0].answer.done():  # its client was told that it took too long
                self.queue.popleft()
            if not self.queue:
                self.some.clear()
                await self.some.wait()
                continue
            if self.settings.batch_wait and len(self.queue) < self.settings.max_batch:
                await asyncio.sleep(self.settings.batch_wait)
            batch, size = [], 0
            while self.queue and len(batch) < self.settings.max_batch and size < 2_000_000:
                if batch and self.queue[0].alone:
                    break
                request = self.queue.popleft()
                if not request.answer.done():
                    batch.append(request)
                    size += len(request.data)
                    if request.alone:
                        break
            if batch:
                return batch
        return []

    async def submit(self, data: bytes) -> tuple[int, str]:
        """A picture file's bytes -> HTTP status and JSON. Raises Refused: 429 when too many wait, 503 when it took too long."""
        if len(self.queue) >= self.settings.max_queue:
            raise Refused(429, "too many requests wait already; try again in a second")
        request = Request(data, asyncio.get_running_loop().create_future())
        self.queue.append(request)
        self.some.set()
        try:
            return await asyncio.wait_for(request.answer, self.settings.timeout)
        except asyncio.TimeoutError:
            raise Refused(503, f"no answer within {self.settings.timeout:g} s; try again later") from None
