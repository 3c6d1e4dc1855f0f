"""TLS between a connection and an answer, on buffers: sealed bytes are read, and stamped, as any others are.

`ssl.SSLSocket` reads for itself, so that nobody can tell when what it returns arrived.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable

from trainyard.bench.answer import Answer

RECEIVE_BYTES = 16384


@functools.cache
def context() -> ssl.SSLContext:
    """Trusts what the machine trusts; SSL_CERT_FILE names another list. Made once: it takes milliseconds."""
    return ssl.create_default_context()


class Sealed:
    """One connection's TLS. A sink (see `exchange.Sink`): opens what it is fed for the answer behind it."""

    def __init__(self, connection: socket.socket, host: str, answer: Answer) -> None:
        self._connection, self._answer = connection, answer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context().wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self, deadline: float, clock: Callable[[], float]) -> None:
        """deadline: of the clock. Raises OSError, also for a certificate that nobody trusts."""
        while True:
            try:
                self._tls.do_handshake()
                self._send()
                return
            except ssl.SSLWantReadError:
                self._send()
            except ssl.SSLError as error:
                self._send()  # the alert that tells the server why
                if isinstance(error, ssl.SSLCertVerificationError):
                    why = f"the server's certificate is not trusted: {error.verify_message}"
                    raise ConnectionError(f"{why}. SSL_CERT_FILE names a file of others to trust") from error
                raise
            left = deadline - clock()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            data = self._connection.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection while shaking hands")
            self._incoming.write(data)

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._send()

    def feed(self, data: bytes, now: float) -> bool:
        self._incoming.write(data)
        try:
            while piece := self._tls.read(RECEIVE_BYTES):
                if self._answer.feed(piece, now):
                    return True
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            pass
        self._answer.close()  # the server said that nothing follows
        return True

    def close(self) -> None:
        self._answer.close()

    def _send(self) -> None:
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())
