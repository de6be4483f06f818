"""The HTTP client of the checks: an answer in time and in words, whatever the peer does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _http
from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, origin, sse
from ansible_collections.llmops.stack.tests.unit.servers.proxy import running_proxy
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json, events
from requests.exceptions import InvalidSchema

Serve = Callable[[Reply], Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda reply: stack.enter_context(Scripted(lambda _request: reply).running())


@contextmanager
def raw(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                with listener.accept()[0] as connection:
                    connection.recv(65536)
                    say(connection)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def kind_of(url: str, timeout: float = 1.0, http: Http | None = None) -> str:
    with pytest.raises(HttpError) as caught:
        (http or Http()).request("GET", url, timeout)
    return caught.value.kind


def test_json_and_headers(serve: Serve) -> None:
    answer = Http().request("GET", serve(as_json({"a": 1}, headers={"X-Version": "1.12.1"})).url + "/x", 2)
    assert (answer.status, answer.json(), answer.headers["x-version"]) == (200, {"a": 1}, "1.12.1")


def test_no_json_is_none(serve: Serve) -> None:
    assert Http().request("GET", serve(Reply(502, "<html>")).url, 2).json() is None


def test_a_get_has_no_content_type(serve: Serve) -> None:
    # The plugin daemon ignores the query string of a GET with one.
    server = serve(as_json({}))
    Http().request("GET", server.url, 2)
    assert "content-type" not in server.requests[0].headers


def test_redirects_are_not_followed(serve: Serve) -> None:
    server = serve(Reply(301, "", headers={"Location": "http://127.0.0.1:1/"}))
    assert Http().request("GET", server.url, 2).status == 301
    assert len(server.requests) == 1


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Http().request("GET", serve(as_json({})).url, 2).status == 200


def test_a_proxy_that_is_given(serve: Serve) -> None:
    with running_proxy() as proxy:
        given = proxy.url.replace("://", "://me:pa55@")
        with pytest.raises(HttpError) as caught:
            Http(proxy=given, no_proxy="localhost,10.0.0.0/8").request("GET", "https://registry.invalid/v2/", 5)
        assert proxy.asked == ["CONNECT registry.invalid:443"]
        assert f"https://registry.invalid (through the proxy {proxy.url})" in str(caught.value)
        assert "pa55" not in str(caught.value)
        # What the server itself would not ask through it, this does not either.
        assert Http(proxy=proxy.url).request("GET", serve(as_json({})).url, 2).status == 200
        assert kind_of("https://127.0.0.1:1", 2, Http(proxy=proxy.url, no_proxy="127.0.0.0/8")) == "refused"
        assert len(proxy.asked) == 1


def test_a_proxy_that_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_unused: object, **_options: object) -> None:
        raise InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(_http.requests.Session, "request", missing)
    with pytest.raises(HttpError, match="PySocks"):
        Http(proxy="socks5://127.0.0.1:1").request("GET", "https://registry.invalid", 2)


def test_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert kind_of(url) == "refused"


def test_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*unused: object, **also: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert kind_of("http://dify.invalid") == "dns"


def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert kind_of(url, 2.0, Http(connect=0.3)) == "timeout_connect"


def test_a_hang_is_a_read_timeout_in_words(serve: Serve) -> None:
    began = time.monotonic()
    with pytest.raises(HttpError, match=r"accepts connections but does not answer within 0\.3 s") as caught:
        Http().request("GET", serve(Reply(hang=True)).url, 0.3)
    assert caught.value.kind == "timeout_read"
    assert time.monotonic() - began < 1


def test_headers_that_drip_do_not_outlast_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(50):
            time.sleep(0.05)
            connection.sendall(b"X")

    began = time.monotonic()
    with raw(drip) as url:
        assert kind_of(url, 0.4) == "timeout_read"
    assert time.monotonic() - began < 1


def test_pings_do_not_outlast_the_deadline(serve: Serve) -> None:
    server = serve(Reply(content_type="text/event-stream", pieces=["event: ping\n\n"] * 100, pause=0.05))
    began = time.monotonic()
    with (
        pytest.raises(HttpError, match=r"began to answer but did not finish within 0\.4 s"),
        Http().stream("POST", server.url, 0.4, body={}) as stream,
    ):
        list(stream.lines())
    assert time.monotonic() - began < 1


def test_lines_arrive_while_the_stream_goes_on(serve: Serve) -> None:
    with Http().stream("POST", serve(events("1", "2", ending="silence")).url, 5, body={}) as stream:
        found = sse(stream.lines())
        assert [next(found), next(found)] == [("", "1"), ("", "2")]


def test_a_torn_stream_is_a_reset(serve: Serve) -> None:
    with (
        pytest.raises(HttpError, match="before its answer was complete") as caught,
        Http().stream("POST", serve(events("1", ending="torn")).url, 2, body={}) as stream,
    ):
        list(stream.lines())
    assert caught.value.kind == "reset"


def test_closed_without_a_word() -> None:
    with raw(lambda connection: None) as url:
        assert kind_of(url) == "reset"


def test_no_http() -> None:
    with raw(lambda connection: connection.sendall(b"\x00\x01debugging port\r\n\r\n")) as url:
        assert kind_of(url) == "protocol"


def test_plain_http_behind_https(serve: Serve) -> None:
    assert kind_of(serve(as_json({})).url.replace("http:", "https:")) == "tls"


def test_no_url() -> None:
    assert kind_of("http://[::1") == "invalid"


def test_an_endless_answer_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "MAX_BYTES", 100)
    assert kind_of(serve(Reply(body="x" * 101)).url) == "too_large"


def test_the_origin_has_no_password() -> None:
    assert origin("http://user:secret@dify.example.com:8080/v1?x=@") == "http://dify.example.com:8080"
    with pytest.raises(HttpError) as caught:
        Http().request("GET", "http://user:secret@127.0.0.1:1/x", 1)
    assert "secret" not in str(caught.value)


def test_request_reaches_the_server_as_given() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        return as_json({})

    with Scripted(answer).running() as server:
        Http().request("POST", server.url + "/a?b=c", 2, {"X-Api-Key": "k"}, {"x": 1})
    assert (seen[0].method, seen[0].path, seen[0].query) == ("POST", "/a", "b=c")
    assert seen[0].headers["x-api-key"] == "k"
    assert seen[0].json() == {"x": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('data: {"a":1}\n\ndata: 2\n\n', [("", '{"a":1}'), ("", "2")]),
        ("event: ping\n\ndata: 1\n\n", [("ping", ""), ("", "1")]),
        ("data:1\n", [("", "1")]),
        ('{"code":-500}', [("", '{"code":-500}')]),
        (": comment\n\n", []),
        ("data: 1\ndata: 2\n\n", [("", "1\n2")]),
    ],
)
def test_sse(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(sse(text.split("\n"))) == expected


def test_a_silent_stream_is_closed_at_once() -> None:
    gone = threading.Event()

    def say(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n")
        connection.settimeout(5)
        if not connection.recv(1):
            gone.set()

    with raw(say) as url:
        with Http().stream("GET", url, 10) as stream:
            assert next(stream.lines()) == "a"
        assert gone.wait(3), "the server would go on for a client that left"
