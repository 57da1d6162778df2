"""The model under TorchServe (course 13-3): what serve_torchserve.py packs into the .mar file beside engine.py and picture.py.

TorchServe collects requests into batches and calls `handle` in a worker process; each request gets the status and the answer
that it gets from the other two services, since the same Predictor gives them.
"""

import json
from http import HTTPStatus
from pathlib import Path

from engine import Predictor, open_model


class Handler:
    predict = None

    def initialize(self, context) -> None:
        """Called once by each worker, in the folder where the .mar file was unpacked."""
        folder = Path(context.system_properties["model_dir"])
        self.predict = Predictor(open_model(folder / context.manifest["model"]["serializedFile"], threads=1))

    def handle(self, data: list[dict], context) -> list[str]:
        """`data`: a row a request; a raw body is under "body", a form's file under "data"."""
        files = [row.get("body") or row.get("data") or b"" for row in data]
        answers = self.predict([file.encode() if isinstance(file, str) else bytes(file) for file in files])
        for i, (status, _) in enumerate(answers):
            context.set_response_status(status, HTTPStatus(status).phrase, i)
            context.set_response_content_type(i, "application/json")
        return [json.dumps(answer) for _, answer in answers]
