"""Tells whether mmcv was installed with its compiled operators, which every detector needs, and what to do if not.

    python mmcv_check.py

mmcv's setup.py compiles them only if it finds torch. If it does not, it makes a package without them, says nothing, and pip
and uv keep that wheel in their caches for the next time.
"""

import importlib

from utils import fail

REPAIR = 'CFLAGS="-g0 -O1" pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps -r requirements-mmcv.txt'


def missing() -> str | None:
    """-> why mmcv's operators cannot be used, in one line; None if they can."""
    try:
        importlib.import_module("mmcv._ext")
    except ImportError as error:
        return f"mmcv's compiled operators are missing ({error}); with requirements.txt installed: {REPAIR}"
    return None


def require() -> None:
    """Ends the program, with what to do, where they are missing."""
    if reason := missing():
        fail(reason)


if __name__ == "__main__":
    require()
    print("mmcv and its operators are there")
