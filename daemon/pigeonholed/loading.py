"""Loading a version of a model for a service: tried by a child process first, then checked and warmed in this one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from pigeonholed.classifying import DeviceUnavailable, load_classifier, trial
from pigeonholed.errors import Unavailable
from pigeonholed.serving import Served

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed.bundle import Bundle
    from pigeonholed.classifying import RuntimeOptions
    from pigeonholed.served_models import ServedModels
    from pigeonholed.settings import Settings
    from pigeonholed.store import ModelStore


def open_tried(
    settings: Settings,
    store: ModelStore,
    served: ServedModels,
    name: str,
    version: int | Literal["current"],
    stop: threading.Event | None = None,
) -> Bundle:
    """Open a version that may be loaded here: a child process has tried it, now or before it last served.

    Raises:
        BundleError: it is refused, or crashed the child, hung it or wanted too much memory.
        Unavailable: the device is not to be had.
    """
    bundle = store.open(name, version)
    if not served.has_served(bundle.digest):
        given_up = (stop or threading.Event()).is_set
        try:
            trial.hold(bundle, **options_of(settings), given_up=given_up)
        except DeviceUnavailable as error:
            raise Unavailable(str(error)) from None
    return bundle


def load_served(
    settings: Settings, bundle: Bundle, on_fault: Callable[[Exception], None] = lambda _error: None
) -> Served:
    """Check and warm a version of a model in this process; `on_fault` is told where it fails for a batch.

    Raises:
        BundleError: it cannot be served.
        Unavailable: the device is not to be had.
    """
    try:
        return Served(bundle, load_classifier(bundle, **options_of(settings)), on_fault)
    except DeviceUnavailable as error:
        raise Unavailable(str(error)) from None


def options_of(settings: Settings) -> RuntimeOptions:
    """Where and how precisely a model is to compute, and how many pictures at a time."""
    return {
        "kind": settings.runtime.kind,
        "device": settings.runtime.device,
        "precision": settings.runtime.precision,
        "max_batch_size": settings.batching.max_batch_size,
    }
