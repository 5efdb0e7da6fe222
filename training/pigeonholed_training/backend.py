"""The libraries that only training needs, and one clear message where they are missing."""

from __future__ import annotations

import importlib.util
import logging

from pigeonholed_training.errors import Unavailable


def require_train_extra() -> None:
    """Finds out before any work whether the libraries of the extra `train` are there.

    Raises:
        Unavailable: they are not; the message says how to install them.
    """
    for name in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise Unavailable(f"{name} is not installed; install it with: pip install 'pigeonholed[train]'")


def quiet_libraries() -> None:
    """Keeps the Python loggers of the libraries to errors; they are not ours to read to a user."""
    for name in ("tensorflow", "absl", "matplotlib", "openvino"):
        logging.getLogger(name).setLevel(logging.ERROR)
