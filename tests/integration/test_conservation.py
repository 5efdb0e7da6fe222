"""What comes into the daemon's hands comes out again: the sum holds at every scrape, and agrees with the database."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from arrivals import arriving
from gauges import Scraped, counted
from running import HOSTILE, KEEPING, RENAMING, Running, Variant, Workspace, drop_twenty, picture, until, working

VARIANTS = (RENAMING, HOSTILE, KEEPING)
IN_FLIGHT = {"claimed", "ingested", "planned"}

pytestmark = pytest.mark.slow


@pytest.fixture(params=VARIANTS, ids=str)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    variant: Variant = request.param
    with working(tmp_path, variant, listen="127.0.0.1:0") as workspace:
        yield workspace


def scrape(daemon: Running) -> Scraped:
    status, text = daemon.fetch("/metrics")
    assert status == 200
    return Scraped.of(text)


def load(workspace: Workspace) -> AbstractContextManager[None]:
    """Files keep arriving while the block runs, some of them broken, some under names that are taken."""

    def drop(serial: int) -> None:
        data = b"no picture %d" % serial if serial % 7 == 0 else picture(220, 60, 40, serial)
        workspace.drop(f"{serial if workspace.variant.inbox_keeps else serial % 50}.png", data)

    return arriving(drop, 300)


def test_sum_holds_at_every_scrape_under_load_over_a_kill_and_at_rest(workspace: Workspace) -> None:
    with workspace.serving() as daemon, load(workspace):
        until(workspace.filed, "the first files")
        loaded = [scrape(daemon) for _ in range(30)]
        daemon.process.kill()
        daemon.process.wait()
    assert [at.faults() for at in loaded] == [[]] * len(loaded)
    assert any(at.total("in_flight_files") for at in loaded), "nothing was ever in flight: this shows nothing"
    filed_before, left = workspace.filed(), sum(status in IN_FLIGHT for status in workspace.statuses())
    with workspace.serving() as daemon:
        drop_twenty(workspace)
        until(lambda: workspace.filed() == len(workspace.dropped), "all to be filed")
        until(lambda: scrape(daemon).total("in_flight_files") == 0, "the books to be closed")
        rest = scrape(daemon)
        assert rest.faults() == []
        assert rest.total("resumed_files_total") == left
        assert rest.total("images_processed_total") == workspace.filed() - filed_before
        assert daemon.terminate() == 0
    assert workspace.audit() == []


def test_files_that_are_put_back_are_counted_and_change_no_sum(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path, listen="127.0.0.1:0")
    drop_twenty(workspace)
    with workspace.serving() as daemon:
        until(lambda: workspace.filed() == 20, "all to be filed")
        assert workspace.run("undo", "--last", "5").returncode == 0
        at = scrape(daemon)
        assert at.faults() == []
        assert (at.total("returned_files_total"), at.total("images_processed_total")) == (5, 20)
        assert workspace.run("undo", "--release").returncode == 0
        until(lambda: workspace.filed() == 20, "what was put back to be filed again")
        until(lambda: scrape(daemon).total("images_processed_total") == 25, "it to be counted again")
        assert scrape(daemon).faults() == []
        assert daemon.terminate() == 0
    assert counted(workspace.statuses()) == {"filed": 20, "returned": 5}


def test_sum_goes_on_over_a_reload(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path, listen="127.0.0.1:0")
    with workspace.serving() as daemon:
        with load(workspace):
            until(workspace.filed, "the first files")
            workspace.config.write_text(workspace.config.read_text().replace("rescan_s = 0.5", "rescan_s = 0.6"))
            daemon.process.send_signal(signal.SIGHUP)
            until(lambda: sum(event["event"] == "service_ready" for event in daemon.events()) == 2, "the new service")
            at = scrape(daemon)
            assert at.faults() == []
            assert at.total("images_processed_total") > 0
        until(lambda: workspace.filed() == len(workspace.dropped), "all to be filed")
        until(lambda: scrape(daemon).total("in_flight_files") == 0, "the books to be closed")
        assert scrape(daemon).faults() == []
        assert scrape(daemon).total("images_processed_total") == workspace.filed()
        assert daemon.terminate() == 0
    assert workspace.audit() == []
