"""Another version of a model while the service runs: loaded, checked and warmed first, then put in place.

A batch is classified by the version that is in place when it begins, and the row names that one. A version that is
refused leaves the old one in service, and is not tried again until something else is asked for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from pigeonholed.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed.engines.lanes import Lane
    from pigeonholed.serving import Served
    from pigeonholed.store import ModelStore

log = structlog.get_logger()


class Switcher:
    """Follows `CURRENT` of the models in service. Owned by the main thread; loading happens in a thread of its own.

    Args:
        store: where the versions are.
        lanes: those that follow the current version.
        load: opens, checks and warms a version of a model.
        on_switch: told of a lane that has switched.
        on_refusal: told of the name of a model whose new version was refused, and why.

    Attributes:
        on_end: called when a load has ended and another may begin.
    """

    def __init__(
        self,
        store: ModelStore,
        lanes: Sequence[Lane],
        load: Callable[[str], Served],
        on_switch: Callable[[Lane], None],
        on_refusal: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._load = load
        self._on_switch = on_switch
        self._on_refusal = on_refusal
        self._refused: dict[str, int | None] = {}
        self._loading: threading.Thread | None = None
        self._busy = False
        self.on_end: Callable[[], None] = lambda: None

    def look(self) -> None:
        """Begin to load what has become current; cheap enough for every second."""
        if self._busy:
            return
        for lane in self._lanes:
            name = lane.served.bundle.name
            try:
                wanted = self._store.current(name)
            except (BundleError, OSError):
                wanted = None  # for the moment: somebody may edit CURRENT by hand, or the store's mount is away
            if wanted is None or wanted == lane.served.bundle.version:
                self._refused.pop(name, None)
            elif wanted != self._refused.get(name):
                self._busy = True
                self._loading = threading.Thread(target=self._switch, args=(lane, wanted), name="switcher", daemon=True)
                self._loading.start()
                return

    def forget_refusals(self) -> None:
        """Try again what was refused."""
        self._refused.clear()

    def join(self) -> None:
        """Wait for a load that is under way."""
        if self._loading is not None:
            self._loading.join()

    def _switch(self, lane: Lane, wanted: int) -> None:
        try:
            self._change(lane, wanted)
        finally:
            self._busy = False
            self.on_end()

    def _change(self, lane: Lane, wanted: int) -> None:
        name, before = lane.served.bundle.name, lane.served.bundle.version
        try:
            served = self._load(name)
        except Exception as error:
            self._refused[name] = wanted
            log.error("model_refused", model=name, version=wanted, serving=before, error=str(error))
            self._on_refusal(name, str(error))
            return
        lane.served = served
        log.info("model_switched", model=name, version=served.bundle.version, before=before)
        self._on_switch(lane)
