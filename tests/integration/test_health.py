"""The health server, asked over real sockets."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pigeonholed.health import HealthServer
from pigeonholed.metrics import Metrics

Make = Callable[..., HealthServer]


def nothing_wrong() -> list[str]:
    return []


@pytest.fixture
def make() -> Iterator[Make]:
    """Starts servers on free ports and closes them afterwards."""
    servers: list[HealthServer] = []

    def start(host: str = "127.0.0.1", **options: object) -> HealthServer:
        checks = {"live": nothing_wrong, "ready": nothing_wrong}
        server = HealthServer(host, 0, Metrics(), **(checks | {"poll_s": 0.01} | options))  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


def ask(
    server: HealthServer, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(host, server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def dial(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?verbose=1"])
def test_a_healthy_daemon_answers_ok(make: Make, path: str) -> None:
    response, body = ask(make(), path)
    assert (response.status, body) == (200, "ok\n")


def test_what_is_wrong_is_said_one_line_each(make: Make) -> None:
    server = make(ready=lambda: ["inbox camera is missing", "the database does not answer"])
    response, body = ask(server, "/readyz")
    assert response.status == 503
    assert body == "inbox camera is missing\nthe database does not answer\n"
    assert ask(server, "/livez")[0].status == 200


def test_live_and_ready_are_not_mixed_up(make: Make) -> None:
    server = make(live=lambda: ["the finisher hangs"])
    assert ask(server, "/livez")[0].status == 503
    assert ask(server, "/readyz")[0].status == 200


def test_a_path_in_a_message_cannot_forge_a_line(make: Make) -> None:
    _, body = ask(make(ready=lambda: ["inbox /a\nok\x1b[31m \udcff is missing"]), "/readyz")
    assert body == "inbox /a\\nok\\x1b[31m \\udcff is missing\n"


def test_a_check_that_raises_counts_as_wrong(make: Make) -> None:
    def broken() -> list[str]:
        raise RuntimeError("no idea")

    response, body = ask(make(ready=broken), "/readyz")
    assert response.status == 503
    assert "no idea" in body


def test_metrics_are_read_by_the_official_parser(make: Make) -> None:
    response, body = ask(make(), "/metrics")
    assert response.status == 200
    assert response.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(body)}
    assert {"pigeonholed_lost_files", "pigeonholed_build_info", "pigeonholed_batch_size_images"} <= names


def test_metrics_come_as_openmetrics_when_asked_for(make: Make) -> None:
    response, body = ask(make(), "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.getheader("Content-Type", "").startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nothing"])
def test_head_has_the_status_and_headers_of_get_and_no_body(make: Make, path: str) -> None:
    server = make()
    with dial(server) as client:  # by hand: http.client would not show a body that should not be there
        client.send(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    get, _ = ask(server, path)
    assert body == b""
    assert head.startswith(f"HTTP/1.0 {get.status} ".encode())
    assert re.search(rb"(?m)^Content-Length: [1-9]", head)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/..", "/metricsx"])
def test_any_other_path_is_not_found(make: Make, path: str) -> None:
    response, body = ask(make(), path)
    assert response.status == 404
    assert "/metrics" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_any_other_method_is_refused(make: Make, method: str) -> None:
    response, body = ask(make(), "/livez", method=method)
    assert response.status == 405
    assert response.getheader("Allow") == "GET, HEAD"
    assert "<" not in body


def test_a_taken_port_is_an_os_error(make: Make) -> None:
    taken = make().port
    with pytest.raises(OSError, match="in use"):
        HealthServer("127.0.0.1", taken, Metrics(), nothing_wrong, nothing_wrong)


def test_the_port_is_free_again_after_close(make: Make) -> None:
    server = make()
    ask(server, "/livez")
    server.close()
    again = HealthServer("127.0.0.1", server.port, Metrics(), nothing_wrong, nothing_wrong)
    again.close()


def test_closing_ends_a_request_in_progress(make: Make) -> None:
    server = make()
    with dial(server) as silent:
        ask(server, "/livez")  # accepted after the silent one, so that one has its thread by now
        server.close()
        assert silent.recv(100) == b""


def test_ipv6_is_listened_on(make: Make) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    server = make("::1")
    assert ask(server, "/livez", host="::1")[0].status == 200


def test_requests_over_the_limit_are_told_busy_at_once(make: Make) -> None:
    server = make(max_requests=2)
    with dial(server), dial(server), dial(server) as third:
        assert third.makefile("rb").read().startswith(b"HTTP/1.0 503")


def test_a_trickling_client_is_cut_off_and_its_place_is_free_again(make: Make) -> None:
    server = make(max_requests=1, deadline_s=0.3)
    with dial(server) as trickling:
        trickling.settimeout(0.05)
        answer = None
        for _ in range(100):  # far more than the deadline: each byte alone comes in time
            try:
                trickling.send(b"G")
                answer = trickling.recv(100)
            except TimeoutError:
                continue
            except OSError:
                answer = b""
            break
        assert answer == b""
    statuses = (ask(server, "/livez")[0].status for _ in range(100))
    assert 200 in statuses  # the generator stops there: at most a few `busy` before the thread has gone


def test_a_client_that_leaves_before_its_answer_upsets_nothing(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    left = threading.Event()
    server = make(live=lambda: [] if left.wait(5) else ["the client never left"], max_requests=1)
    with dial(server) as hasty:
        hasty.send(b"GET /livez HTTP/1.0\r\n\r\n")
        hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leave with a reset
    left.set()
    statuses = (ask(server, "/readyz")[0].status for _ in range(100))
    assert 200 in statuses  # the one place is free again, so the hasty one's thread has come to its end
    assert capfd.readouterr() == ("", "")


def test_garbage_gets_one_plain_line(make: Make) -> None:
    with dial(make()) as client:
        client.send(b"\x16\x03\x01 <script>\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b"<" not in answer


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["x", "1.x", "9" * 5000, "", "1..0"])
def test_metrics_asked_for_in_no_version_come_in_the_usual_one(make: Make, kind: str, version: str) -> None:
    response, body = ask(make(), "/metrics", Accept=f"{kind}; version={version}")
    assert response.status == 200
    assert "pigeonholed_build_info" in body
