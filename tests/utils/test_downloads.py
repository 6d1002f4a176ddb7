import base64
import gzip
import hashlib
import http.server
import socket
import threading
import time
from pathlib import Path

import pytest
from helpers import same_on_paddle_3

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.lite.optimizer import find_interpreters
from paddle_sparse_cb.utils.downloads import Limits, cache_dir, cached_folder, fetch_url

pytestmark = same_on_paddle_3

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
QUICK = Limits(pause=0.01)


class Host(http.server.BaseHTTPRequestHandler):
    """Sends a file with the headers in the request's path, such as /Content-Length=9/model.pdparams."""

    requests = 0
    statuses = ()  # of the first requests; later ones are answered with 200
    body = CONTENT

    def do_GET(self):
        number = type(self).requests
        type(self).requests += 1
        status = self.statuses[number] if number < len(self.statuses) else 200
        self.send_response(404 if "missing" in self.path else status)
        for part in self.path.split("/")[1:-1]:
            self.send_header(*part.split("=", 1))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments):
        pass


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(Host, "requests", 0)
    server = serve(Host)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def stream():
    """Starts a host that sends bytes until the client hangs up, and returns its URL."""
    servers = []

    def start(chunks, **headers):
        class Stream(Host):
            def do_GET(self):
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                try:
                    for chunk in chunks():
                        self.wfile.write(chunk)
                except OSError:
                    pass

        servers.append(serve(Stream))
        return f"http://127.0.0.1:{servers[-1].server_port}/model.pdparams"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def cached_files(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "url",
    [
        "/model.pdparams",
        f"/Content-Length={len(CONTENT)}/Content-MD5={MD5}/model.pdparams",
        f"/model.pdparams#sha256={SHA256}",
    ],
)
def test_a_file_is_downloaded_once_and_then_read_from_the_cache(host, cache, url):
    for _ in range(2):
        assert fetch_url(host + url).name == "model.pdparams"
        assert fetch_url(host + url).read_bytes() == CONTENT
    assert Host.requests == 1
    assert len(cached_files(cache)) == 1


def test_files_of_the_same_name_at_different_urls_are_kept_apart(host):
    assert fetch_url(f"{host}/model.pdparams") != fetch_url(f"{host}/A=b/model.pdparams")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/Content-MD5=abc/model.pdparams", "its MD5 is .*, the host announced abc"),
        (f"/model.pdparams#sha256={'0' * 64}", f"SHA256 hash .* expected sha256:0{{64}} but got {SHA256}$"),
        ("/missing.pdparams", "404 Not Found;"),
    ],
)
def test_a_failed_check_is_an_error_without_retry_and_leaves_nothing_behind(host, cache, url, reason):
    for attempt in range(2):
        with pytest.raises(InputError, match=f"cannot download {host}/.*pdparams: .*{reason}") as error:
            fetch_url(host + url, QUICK)
        assert "\n" not in str(error.value)
        assert Host.requests == attempt + 1
    assert not cached_files(cache)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<p>Moved</p>", "text/html; charset=utf-8"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>Log in", "application/octet-stream"),
    ],
)
def test_an_html_page_is_refused(stream, cache, body, kind):
    with pytest.raises(InputError, match="the host sent an HTML page, not a file"):
        fetch_url(stream(lambda: [body], Content_Type=kind), QUICK)
    assert not cached_files(cache)


def test_an_empty_body_is_refused(stream, cache):
    with pytest.raises(InputError, match="the host sent an empty body"):
        fetch_url(stream(lambda: []), QUICK)
    assert not cached_files(cache)


def test_a_truncated_body_is_downloaded_again_and_refused_if_it_stays_so(host, cache):
    with pytest.raises(InputError, match=r"IncompleteRead\(7000 bytes read, 2000 more expected\)"):
        fetch_url(f"{host}/Content-Length=9000/model.pdparams", QUICK)
    assert Host.requests == 1 + QUICK.retries
    assert not cached_files(cache)


@pytest.mark.parametrize("statuses", [[503], [500, 429]])
def test_a_download_is_retried_after_a_temporary_failure_of_the_host(host, statuses, monkeypatch):
    monkeypatch.setattr(Host, "statuses", statuses)
    assert fetch_url(f"{host}/model.pdparams", QUICK).read_bytes() == CONTENT
    assert Host.requests == 1 + len(statuses)


def test_a_host_that_keeps_failing_is_given_up(host, cache, monkeypatch):
    monkeypatch.setattr(Host, "statuses", [503] * 9)
    with pytest.raises(InputError, match="503 Service Unavailable"):
        fetch_url(f"{host}/model.pdparams", QUICK)
    assert Host.requests == 1 + QUICK.retries
    assert not cached_files(cache)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 7000\r\n\r\nweights"])
def test_every_read_has_a_timeout(answer, cache):
    limits = Limits(read_timeout=0.3, retries=0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []
        answering = threading.Thread(target=lambda: kept.append(server.accept()[0]) or kept[0].sendall(answer))
        answering.start()
        with pytest.raises(InputError, match=r"cannot download http.*: timed out"):
            fetch_url(f"http://127.0.0.1:{server.getsockname()[1]}/model.pdparams", limits)
        answering.join()
    kept[0].close()
    assert not cached_files(cache)


def drip():
    while True:
        yield b"x"
        time.sleep(0.05)


def endless():
    while True:
        yield bytes(1 << 16)


@pytest.mark.timeout(180)
def test_a_host_that_sends_a_byte_at_a_time_is_stopped_at_the_total_time_limit(stream, cache):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"not complete after 0\.6 s"):
        fetch_url(stream(drip, Content_Length="7000"), Limits(total_timeout=0.6))
    assert time.monotonic() - start < 60  # the whole body would take six minutes
    assert not cached_files(cache)


@pytest.mark.timeout(180)
def test_a_host_that_sends_its_headers_a_byte_at_a_time_is_stopped_too(cache):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection = server.accept()[0]
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.05)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match=r"not complete after 0\.6 s"):
            fetch_url(
                f"http://127.0.0.1:{server.getsockname()[1]}/model.pdparams",
                Limits(total_timeout=0.6),
            )
    assert not cached_files(cache)


@pytest.mark.timeout(180)
def test_an_endless_body_is_stopped_at_the_maximum_size(stream, cache):
    with pytest.raises(InputError, match="larger than 1,000,000 bytes"):
        fetch_url(stream(endless), Limits(max_bytes=1_000_000))
    assert not cached_files(cache)


@pytest.mark.timeout(180)
def test_a_compressed_body_is_stopped_at_the_maximum_size_too(stream, cache):
    body = gzip.compress(bytes(100_000_000))
    assert len(body) < 100_000
    with pytest.raises(InputError, match="larger than 1,000,000 bytes"):
        fetch_url(stream(lambda: [body], Content_Encoding="gzip"), Limits(max_bytes=1_000_000))
    assert not cached_files(cache)


def test_a_file_that_fails_the_callers_check_does_not_enter_the_cache(host, cache):
    def check(file):
        raise InputError(f"{file}: not a weight file: truncated")

    for attempt in range(2):
        with pytest.raises(InputError, match=r"^cannot use what http://.*/model.pdparams sent: not a weight file: tr"):
            fetch_url(f"{host}/model.pdparams", QUICK, check)
        assert Host.requests == attempt + 1
    assert not cached_files(cache)
    assert fetch_url(f"{host}/model.pdparams", QUICK, Path.read_bytes).read_bytes() == CONTENT


@pytest.mark.timeout(180)
def test_progress_is_shown_on_a_terminal_only(host, monkeypatch, capfd):
    fetch_url(f"{host}/model.pdparams")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    fetch_url(f"{host}/Content-Length=7000/model.pdparams")
    assert "7.0/7.0 kB" in capfd.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/model.pdparams",
        "file:///etc/model.pdparams",
        "https://host/",
        "https://[host/model.pdparams",
        "http://[::1/x.pdparams",
        "https://host/a model.pdparams",
        "https://host/model.pdparams ",
        "https://host/..",
        "https://host/model.pdparams#md5=1",
        "https://host/model.pdparams#sha256=12",
    ],
)
def test_a_malformed_url_is_an_error_that_names_it(url):
    with pytest.raises(InputError, match="a URL must be https|must be sha256= and 64") as error:
        fetch_url(url)
    assert str(error.value).startswith(url)


@pytest.mark.parametrize("url", ["http://host/a\nb.pdparams", "http://ho\0st/b.pdparams"])
def test_a_url_with_a_control_character_is_shown_in_one_line(url):
    with pytest.raises(InputError, match=r"^'http://.*: a URL must be https://") as error:
        fetch_url(url)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("host", ["[::1]x", "h:port", "h:99999999", "a..b", "x" * 70, "user:word@", ".", "[v1.a]"])
def test_a_host_that_cannot_be_one_is_an_error_of_one_line(host, cache):
    with pytest.raises(InputError, match="^cannot download http://") as error:
        fetch_url(f"http://{host}/model.pdparams", QUICK)
    assert "\n" not in str(error.value)


def test_a_url_cannot_redirect_to_a_local_file(cache, tmp_path):
    (tmp_path / "model.pdparams").write_bytes(CONTENT)

    class Redirect(Host):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"file://{tmp_path}/model.pdparams")
            self.end_headers()

    server = serve(Redirect)
    with pytest.raises(InputError, match="cannot download"):
        fetch_url(f"http://127.0.0.1:{server.server_port}/model.pdparams", QUICK)
    server.shutdown()
    server.server_close()
    assert not cached_files(cache)


def test_the_cache_folder_is_chosen_by_the_users_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("PADDLE_SPARSE_CACHE", raising=False)
    assert cache_dir() == Path("/somewhere/paddle_sparse_cb")
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", "/elsewhere")
    assert cache_dir() == Path("/elsewhere")


@pytest.mark.parametrize("explicit", [None, "~/cache", "~nobody_of_this_name/cache"])
def test_a_user_without_a_home_folder_is_told_what_to_set(explicit, monkeypatch, tmp_path):
    """As in a container that runs under an unknown uid: a folder named ~ in the current one would be no cache."""

    def unknown(*_):
        raise KeyError("uid not found")

    for variable in ("HOME", "XDG_CACHE_HOME", "PADDLE_SPARSE_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    if explicit:
        monkeypatch.setenv("PADDLE_SPARSE_CACHE", explicit)
    with pytest.raises(
        InputError, match=r"no home folder for the download cache ~.*: set HOME or PADDLE_SPARSE_CACHE$"
    ):
        cache_dir()
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    assert list(find_interpreters("9.9")) == []


def test_a_cached_folder_is_built_once_and_never_changed(cache):
    def build(content):
        def fill(folder):
            folder.mkdir()
            (folder / content).touch()

        return fill

    def slow(folder):  # another process finishes while this one is still building
        cached_folder("tiles", build("first"))
        build("second")(folder)

    for fill in (slow, build("third")):
        assert [path.name for path in cached_folder("tiles", fill).iterdir()] == ["first"]
    assert [path.name for path in cache.iterdir()] == ["tiles"]


def test_a_failed_build_leaves_nothing_behind(cache):
    def fail(folder):
        folder.mkdir()
        (folder / "part").touch()
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        cached_folder("tiles", fail)
    assert not list(cache.iterdir())
