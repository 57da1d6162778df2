"""Behind `python serve.py --with ray`: the same service under Ray Serve, for more than one machine.

On one machine this starts a Ray of its own. For several, run `ray start --head` on the first, `ray start --address=FIRST:6379`
on the others, and then, on any, RAY_ADDRESS=auto python serve.py --with ray --host 0.0.0.0 --workers 16: replicas are spread
over the machines, and their number follows the load, from 1 to --workers.
"""

import importlib.util
import logging
import os
import signal
import threading
from pathlib import Path

from service.app import Hosts, Service, answer, refusal
from service.engine import BadModel, Predictor, open_onnx
from service.options import fail
from service.pool import CannotStart, Model, Settings

CHAPTER = Path(__file__).parents[1]
log = logging.getLogger("serve")


class Classifier:
    """A replica: a process with its own network, which takes HTTP requests as app.py does. `build` adds the batches."""

    def __init__(self, settings: Settings, model: Model):
        self.settings, self.model, self.ready, self.alive = settings, model, True, True
        engine = open_onnx(model.data, settings.threads, settings.provider)
        self.predict = Predictor(engine, settings.max_pixels)
        self.service, self.hosts = Service(self, metrics=None), Hosts(settings)
        self.routes = {"/": self.service.show_page, "/ready": self.service.ready, "/health": self.service.health}

    async def submit(self, data: bytes) -> tuple[int, dict]:
        """What app.Service asks of its pool."""
        return await self.batch(data)

    async def __call__(self, request):
        if why := self.hosts.objection(request.scope):
            return refusal(why)
        path, method = request.url.path, request.method
        if path == "/predict" and method == "POST":
            return await self.service.predict(request)
        if path in self.routes and method in ("GET", "HEAD"):
            return await self.routes[path]()
        return answer(404, {"error": "there are POST /predict, GET /, /ready and /health"})


def build(settings: Settings, model: Model):
    """-> the Ray Serve application: from one replica to `settings.workers`, by load."""
    from ray import serve

    class Batching(Classifier):
        @serve.batch(max_batch_size=settings.max_batch, batch_wait_timeout_s=max(0.001, settings.batch_wait))
        async def batch(self, files: list[bytes]) -> list[tuple[int, dict]]:
            return self.predict(files)

    scaling = {"min_replicas": 1, "max_replicas": settings.workers, "target_ongoing_requests": settings.max_batch}
    scaling |= {"upscale_delay_s": 5, "downscale_delay_s": 120}
    deployed = serve.deployment(
        max_ongoing_requests=2 * settings.max_batch,
        max_queued_requests=settings.max_queue,  # beyond these, 503
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": settings.threads},
        graceful_shutdown_timeout_s=settings.timeout,
    )
    return deployed(Batching).bind(settings, model)


def main(settings: Settings) -> None:
    """Serves until a signal ends it."""
    if importlib.util.find_spec("ray") is None:
        fail("pip install -r requirements-ray.txt (there is no ray)")
    try:
        model = Model.read(settings.model)
        model.meta = open_onnx(model.data, 1).meta
    except (BadModel, CannotStart) as why:
        fail(f"{settings.model}: {why}" if str(settings.model) not in str(why) else why)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    import ray
    from ray import serve

    environment = {"working_dir": str(CHAPTER), "excludes": ["runs", "data", "weights", "tests", ".venv"]}
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env=environment)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(build(settings, model), name="classifier")
    log.info("model %s under Ray Serve on http://%s:%d", model.version, settings.host, settings.port)
    ended = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()
