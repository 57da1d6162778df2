"""Starts a Visdom server on this machine, which `python train.py --visdom` draws to.

    python visdom_server.py                  # then open http://127.0.0.1:8097 in a browser; Ctrl-C ends it
    python visdom_server.py --port 9000      # and: python train.py --visdom http://127.0.0.1:9000

`python -m visdom.server` first downloads the browser's scripts and dies without internet access. This starts the same
server without that (the page needs the scripts, so be online once: `python -m visdom.server` puts them in place; curves
are received and kept without them). It answers this machine only.
"""

import argparse
from pathlib import Path

from utils import fail


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8097, help="default: %(default)s")
    parser.add_argument(
        "--keep", default="runs/visdom", metavar="DIR", help="where plots are kept (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        from visdom.server.run_server import start_server
    except ImportError:
        fail("Visdom is not installed; see requirements-visdom.txt")
    Path(args.keep).mkdir(parents=True, exist_ok=True)
    try:
        start_server(port=args.port, hostname="127.0.0.1", base_url="", env_path=args.keep, bind_local=True)
    except OSError as error:
        fail(f"port {args.port}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
