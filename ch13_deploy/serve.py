"""Serves an exported model over HTTP: one service, three ways to run it.

    python serve.py                                  # http://127.0.0.1:8000, the shipped model, ONNX Runtime
    python serve.py --model runs/resnet10-sample/export/resnet10.onnx --port 8080 --workers 2
    python serve.py --with torchserve                # the same model under TorchServe (requirements-torchserve.txt, Java)
    python serve.py --with ray                       # the same under Ray Serve (requirements-ray.txt)
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
    curl -F file=@a.jpg -F file=@b.jpg http://127.0.0.1:8000/predict

A token, if there is to be one, comes in the environment: SERVE_TOKEN=... python serve.py. SIGHUP opens the model file again;
SIGTERM stops taking requests, answers those that were taken, and ends. Nothing is written, so that a read-only disk will do.
"""

import importlib
import logging
import sys

from service.options import parse

WAYS = {"asgi": "service.server", "torchserve": "service.serve_torchserve", "ray": "service.serve_ray"}


def main(argv=None) -> None:
    args, settings = parse(argv, __doc__)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stdout)
    importlib.import_module(WAYS[args.how]).main(settings)


if __name__ == "__main__":
    main()
