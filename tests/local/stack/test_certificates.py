from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from local.stack.certificates import Certificates, ensure


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    files = Certificates.within(tmp_path / "certificates")
    ensure(files)
    return files


def test_a_client_that_trusts_the_authority_trusts_the_server(files: Certificates) -> None:
    """With Python's strictest checks, which 3.13 and later make by default."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=str(files.authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with server.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            assert tls.recv(5) == b"hello"
        thread.join()


def test_certificates_stay_as_long_as_they_are_good(files: Certificates) -> None:
    before = files.certificate.read_bytes()
    ensure(files)
    assert files.certificate.read_bytes() == before

    files.certificate.write_text("spoilt")
    ensure(files)
    assert files.certificate.read_bytes() != before


def test_the_key_is_private(files: Certificates) -> None:
    assert files.key.stat().st_mode & 0o077 == 0
