"""The sockets of one SIP address: UDP and TCP on its port, TLS on 5061, and the connections that it made."""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from tests.edge.message import Message

TLS_PORT = 5061
_CONNECT_TIMEOUT_S = 5.0
_WAKER = b"\0wake "


class Secure:
    """A TLS connection that one thread reads and others write: OpenSSL allows one at a time in it."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        connection.settimeout(0)
        self._connection = connection
        self._lock = threading.Lock()

    def recv(self, size: int) -> bytes:
        """Waits for something. Raises OSError."""
        while True:
            with self._lock:
                try:
                    return self._connection.recv(size)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
            self._wait(select.POLLIN)

    def sendall(self, data: bytes) -> None:
        """Raises OSError."""
        while data:
            with self._lock:
                try:
                    data = data[self._connection.send(data) :]
                    continue
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
            self._wait(select.POLLOUT)

    def shutdown(self, how: int) -> None:
        with self._lock:
            self._connection.shutdown(how)

    def close(self) -> None:
        self._connection.close()

    def _wait(self, what: int) -> None:
        poll = select.poll()
        try:
            poll.register(self._connection, what)
        except ValueError:
            raise OSError("the connection is closed") from None
        poll.poll()


Connection = socket.socket | Secure


class Transport:
    """Receives for one address, and sends from it. ``arrived`` is called by the threads that read."""

    def __init__(
        self,
        address: str,
        port: int,
        arrived: Callable[[Message], None],
        server: ssl.SSLContext | None = None,
        client: ssl.SSLContext | None = None,
    ) -> None:
        self.address, self._arrived = address, arrived
        self._server, self._client = server, client
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._lock = threading.Lock()
        self._connections: dict[tuple[str, tuple[str, int]], Connection] = {}
        self._accepted: list[Connection] = []
        self._woken = threading.Condition()
        self._wakers = 0
        self._threads: list[threading.Thread] = []
        self._listeners: list[socket.socket] = []
        self._udp = self._bind(port)
        self.port = int(self._udp.getsockname()[1])
        self.is_open = True
        self._listen()

    def _bind(self, port: int) -> socket.socket:
        udp = socket.socket(self._family, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        udp.bind((self.address, port))
        return udp

    def _listen(self) -> None:
        self._start(self._read_datagrams, self._udp)
        ports = [("tcp", self.port), *((("tls", TLS_PORT),) if self._server else ())]
        for over, port in ports:
            listener = socket.create_server((self.address, port), family=self._family, backlog=64)
            self._listeners.append(listener)
            self._start(self._accept, listener, over)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def open(self) -> None:
        """Listen again after :meth:`close`."""
        self._udp = self._bind(self.port)
        self.is_open = True
        self._listen()

    def close(self) -> None:
        """Stop listening and close every connection."""
        if not self.is_open:
            return
        self.is_open = False
        self._wake()
        with self._lock:
            connections: list[Connection] = [*self._listeners, *self._accepted, *self._connections.values()]
            self._listeners, self._accepted, self._connections = [], [], {}
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._udp.close()
        for thread in self._threads:
            thread.join(2)
        self._threads = []

    def drain(self) -> None:
        """Return when every datagram that had arrived before has been handed on."""
        with self._woken:
            wanted = self._wakers + 1
            self._wake()
            self._woken.wait_for(lambda: self._wakers >= wanted or not self.is_open, 5)

    def _wake(self) -> None:
        with socket.socket(self._family, socket.SOCK_DGRAM) as waker:
            waker.sendto(_WAKER, (self.address, self.port))

    def send(self, data: bytes, to: tuple[str, int], over: str = "udp") -> None:
        """Send; over TCP and TLS on one connection to each peer, made when it is first needed."""
        if over == "udp":
            self._udp.sendto(data, to)
        else:
            self._connection(over, to).sendall(data)

    def _connection(self, over: str, to: tuple[str, int]) -> Connection:
        with self._lock:
            if (over, to) in self._connections:
                return self._connections[over, to]
        plain = socket.create_connection(to, timeout=_CONNECT_TIMEOUT_S, source_address=(self.address, 0))
        made: Connection = plain
        if over == "tls":
            assert self._client is not None, "this party has no certificate"
            made = Secure(self._client.wrap_socket(plain, server_hostname=to[0]))
        else:
            plain.settimeout(None)
        with self._lock:
            self._connections[over, to] = made
        self._start(self._read_stream, made, over, to)
        return made

    def _read_datagrams(self, udp: socket.socket) -> None:
        while True:
            try:
                data, peer = udp.recvfrom(65535)
            except OSError:
                if self.is_open:
                    raise
                return
            if data == _WAKER:
                with self._woken:
                    self._wakers += 1
                    self._woken.notify_all()
                if not self.is_open:
                    return
                continue
            self._arrived(Message(data, time.monotonic(), peer[:2]))

    def _accept(self, listener: socket.socket, over: str) -> None:
        while True:
            try:
                plain, peer = listener.accept()
            except OSError:
                return
            connection: Connection = plain
            if over == "tls":
                assert self._server is not None
                try:
                    connection = Secure(self._server.wrap_socket(plain, server_side=True))
                except OSError:
                    continue
            with self._lock:
                self._accepted.append(connection)
            self._start(self._read_stream, connection, over, peer[:2])

    def _read_stream(self, connection: Connection, over: str, peer: tuple[str, int]) -> None:
        """Cut the stream into messages by Content-Length (RFC 3261 section 18.3)."""
        data = b""
        while True:
            try:
                more = connection.recv(65535)
            except OSError:
                return
            if not more:
                break
            data += more
            while True:
                data = data.lstrip(b"\r\n")
                head, ended, rest = data.partition(b"\r\n\r\n")
                if not ended:
                    break
                length = Message(head, 0.0, peer)["Content-Length"]
                wanted = int(length) if length.isdigit() else 0
                if len(rest) < wanted:
                    break
                raw, data = head + ended + rest[:wanted], rest[wanted:]
                self._arrived(Message(raw, time.monotonic(), peer, over, connection.sendall))
        with self._lock:
            self._connections = {key: value for key, value in self._connections.items() if value is not connection}
