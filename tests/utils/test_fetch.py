import base64
import hashlib
import http.server
import socket
import threading

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.utils import fetch as fetching
from paddle_sparse_cb.utils.fetch import fetch

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


class Host(http.server.BaseHTTPRequestHandler):
    """Gives the file with the headers that the path asks for: /Content-Length=9/model.pdparams."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(404 if "missing" in self.path else 200)
        for part in self.path.split("/")[1:-1]:
            self.send_header(*part.split("=", 1))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path / "cache"))
    Host.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["/model.pdparams", f"/Content-Length={len(CONTENT)}/Content-MD5={MD5}/model.pdparams",
                                 f"/model.pdparams#sha256={SHA256}"])
def test_a_file_is_fetched_once(host, url):
    for _ in range(2):
        assert fetch(host + url).name == "model.pdparams"
        assert fetch(host + url).read_bytes() == CONTENT
    assert Host.asked == 1


def test_files_of_the_same_name_are_two(host):
    assert fetch(f"{host}/model.pdparams") != fetch(f"{host}/A=b/model.pdparams")


@pytest.mark.parametrize(("url", "said"), [
    ("/Content-Length=9000/model.pdparams", r"cannot fetch .*IncompleteRead\(7000 bytes read, 2000 more expected\)"),
    ("/Content-MD5=abc/model.pdparams", "its MD5 is .*, not abc"),
    (f"/model.pdparams#sha256={'0' * 64}", f"its SHA-256 is {SHA256}, not 000"),
    ("/missing.pdparams", r"cannot fetch .*missing.pdparams \(Not Found\)"),
])
def test_what_is_not_the_whole_file_is_an_error_and_not_kept(host, url, said, tmp_path):
    for _ in range(2):
        with pytest.raises(InputError, match=said):
            fetch(host + url)
    assert Host.asked == 2
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 7000\r\n\r\nweights"])
def test_a_host_that_falls_silent_is_not_waited_for(says, monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []
        threading.Thread(target=lambda: kept.append(server.accept()[0]) or kept[0].sendall(says), daemon=True).start()
        with pytest.raises(InputError, match=r"cannot fetch http.* \(timed out\)"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/model.pdparams")
    kept[0].close()


@pytest.mark.parametrize("url", ["ftp://host/model.pdparams", "file:///etc/model.pdparams", "https://host/",
                                 "https://host/model.pdparams#md5=1", "https://host/model.pdparams#sha256=12"])
def test_a_url_that_means_nothing_is_an_error(url):
    with pytest.raises(InputError, match="URL is https|sha256= and 64"):
        fetch(url)
