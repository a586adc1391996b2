from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import certifi
import pytest

import atldld
from atldld import APIError, set_options

from .conftest import answer

BODY = b'{"success": true, "start_row": 0, "num_rows": 0, "total_rows": 0, "msg": []}'
"""Of a query that finds nothing."""

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Make a certificate for 127.0.0.1 that nobody has heard of."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def serve_tls(serve, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return lambda handler: serve(handler, tls=context)


def finds(url):
    """Ask one query of a service; return how many datasets it knows."""
    return len(atldld.search(plane="coronal", source=url))


@needs_openssl
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_of_the_environment_is_trusted(serve_tls, certificate, monkeypatch, variable):
    monkeypatch.setenv(variable, str(certificate / "cert.pem"))
    server = serve_tls(lambda request: answer(BODY))
    assert finds(server.url) == 0
    assert finds(server.url) == 0


@needs_openssl
def test_certificates_that_changed_are_read_again(serve_tls, certificate, monkeypatch, tmp_path):
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    server = serve_tls(lambda request: answer(BODY))
    with pytest.raises(APIError, match="its certificate is not trusted"):
        finds(server.url)
    trusted.write_bytes((certificate / "cert.pem").read_bytes())
    assert finds(server.url) == 0
    trusted.unlink()
    with pytest.raises(APIError, match="not there"):
        finds(server.url)


@needs_openssl
def test_a_stranger_is_not_trusted_and_not_asked_again(serve_tls):
    server = serve_tls(lambda request: answer(BODY))
    with pytest.raises(APIError, match="its certificate is not trusted"):
        finds(server.url)
    assert (len(server.requests), server.connections) == (0, 1)


@needs_openssl
def test_a_dripping_server_holds_nobody(serve_tls, certificate, monkeypatch):
    stopped = threading.Event()

    def drip(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
        while not stopped.wait(0.02):
            yield b"x"

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    server = serve_tls(drip)
    with set_options(timeout=0.5, retries=0), pytest.raises(APIError, match="time limit"):
        finds(server.url)
    stopped.set()


@needs_openssl
def test_a_redirect_keeps_its_protection(serve, serve_tls, certificate, monkeypatch):
    plain = serve(lambda request: answer(BODY))
    server = serve_tls(lambda request: answer(b"", "302 Found", Location=plain.url))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    with pytest.raises(APIError, match="from https to http"):
        finds(server.url)
    assert plain.requests == []
    # The other way is fine, and common.
    plain.handler = lambda request: answer(b"", "301 Moved", Location=server.url)
    server.handler = lambda request: answer(BODY)
    assert finds(plain.url) == 0


@pytest.fixture
def tunnel():
    """Run a proxy that knows CONNECT only; yields its URL and what was asked."""
    asked = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def run():
        client, _ = listener.accept()
        with client:
            stream = client.makefile("rb")
            while (line := stream.readline().strip()) != b"":
                asked.append(line.decode())
            host, port = asked[0].split()[1].split(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(server, client))
                back.start()
                pump(client, server)
                back.join()
            stream.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    thread.join()
    listener.close()


@needs_openssl
def test_a_tunnel_through_a_proxy(serve_tls, certificate, monkeypatch, tunnel):
    server = serve_tls(
        lambda request: answer(BODY, Connection="close"),
    )
    proxy, asked = tunnel
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    assert finds(server.url) == 0
    assert asked[0].startswith(f"CONNECT {server.url.removeprefix('https://')} ")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_named(monkeypatch, variable, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "gone.pem"))
    with pytest.raises(
        APIError, match=f"{variable} names a file of certificates that is not there"
    ):
        finds("https://127.0.0.1:9/x")
