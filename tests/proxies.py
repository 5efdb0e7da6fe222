"""A TCP proxy before a Postgres server that loses the answers to commits."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

_COMMIT = b"COMMIT\0"


class Proxy:
    """Forwards to 127.0.0.1:`target`; a commit that is to be lost is done, and then both ends are cut off.

    Args:
        target: the server's port.
        loses: told the number of each commit, from 1; true where its answer is to be lost.
    """

    def __init__(self, target: int, loses: Callable[[int], bool] = lambda _number: False) -> None:
        self._target = target
        self._loses = loses
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.commits = 0
        self.lost = 0
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in list(self._open):
            _cut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        losing = threading.Event()
        self._open |= {client, server}
        answers = threading.Thread(target=self._answer, args=(server, client, losing), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if data.endswith(_COMMIT) and self._is_lost():
                    losing.set()
                server.sendall(data)
        _cut(server)
        answers.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _answer(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if losing.is_set():
                    break  # the server has done it; nobody will hear of it
                client.sendall(data)
        _cut(client)
        _cut(server)

    def _is_lost(self) -> bool:
        with self._lock:
            self.commits += 1
            lost = self._loses(self.commits)
            self.lost += lost
            return lost


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(target: int, loses: Callable[[int], bool] = lambda _number: False) -> Iterator[Proxy]:
    """A proxy that ends with the block."""
    made = Proxy(target, loses)
    try:
        yield made
    finally:
        made.close()
