"""The model under TorchServe (course 13-3): what serve_torchserve.py packs into the .mar file beside engine.py and picture.py.

TorchServe collects requests into batches and calls `handle` in a worker process; each request gets the status and the answer
that it gets from the other two services, since the same Predictor gives them.
"""

import json
import sys
from http import HTTPStatus
from pathlib import Path


class Handler:
    predict = None

    def initialize(self, context) -> None:
        """Called once by each worker, in the folder where the .mar file was unpacked."""
        folder = Path(context.system_properties["model_dir"])
        sys.path.insert(0, str(folder))  # before TorchServe's own folder, which has a service.py too
        from service.engine import Predictor, open_model

        self.predict = Predictor(open_model(folder / context.manifest["model"]["serializedFile"], threads=1))

    def handle(self, data: list[dict], context) -> list[str]:
        """`data`: a row a request; a raw body is under "body", a form's file under "data"."""
        answers = self.predict([bytes_of(row.get("body") or row.get("data")) for row in data])
        for i, (status, _) in enumerate(answers):
            context.set_response_status(status, HTTPStatus(status).phrase, i)
            context.set_response_content_type(i, "application/json")
        return [json.dumps(answer) for _, answer in answers]


def bytes_of(body) -> bytes:
    """What TorchServe made of a body: of JSON a dict or a list, which is no picture, and must not cost the others theirs."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
