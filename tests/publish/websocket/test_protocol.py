from websockets.http11 import Request
from websockets.protocol import OPEN

from agent.publish.http.pages import PLAIN, Reply
from agent.publish.websocket.protocol import (
    FRAME_BYTES,
    MAX_REQUEST_BYTES,
    LimitedProtocol,
    frame,
    http_response,
)
from agent.publish.websocket.rejections import INBOUND_BYTES, INBOUND_BYTES_PER_SECOND

from .serving import UPGRADE

REQUEST = UPGRADE.format(path="/events").encode()
PING = b"\x89\x80\0\0\0\0"


def receive(protocol: LimitedProtocol, data: bytes, now: float = 0.0) -> list[Request]:
    return [request for request in protocol.receive(data, now) if request is not None]


def opened() -> LimitedProtocol:
    """Return a protocol whose WebSocket handshake is complete."""
    protocol = LimitedProtocol(0.0)
    (request,) = receive(protocol, REQUEST)
    protocol.send_response(protocol.accept(request))
    protocol.output()
    return protocol


def test_a_request_in_pieces() -> None:
    protocol = LimitedProtocol(0.0)
    assert receive(protocol, REQUEST[:40]) == []
    assert not protocol.has_request
    (request,) = receive(protocol, REQUEST[40:])
    assert request.path == "/events"
    assert protocol.has_request


def test_a_request_that_is_too_large() -> None:
    protocol = LimitedProtocol(0.0)
    receive(protocol, REQUEST[:40])
    for _ in range(MAX_REQUEST_BYTES // 4096):
        assert not protocol.is_request_too_large
        receive(protocol, b"X-Header: " + b"x" * 4084 + b"\r\n")
    assert protocol.is_request_too_large


def test_frames_are_charged_and_silence_pays_for_them() -> None:
    protocol = opened()
    budget = protocol._budget
    receive(protocol, PING)
    assert protocol._budget == budget - len(PING) - FRAME_BYTES
    receive(protocol, PING, 1.0)
    spent = 2 * (len(PING) + FRAME_BYTES)
    assert protocol._budget == min(budget + INBOUND_BYTES_PER_SECOND, INBOUND_BYTES) - spent / 2
    receive(protocol, PING * 2000, 1.0)
    assert protocol.is_overdrawn


def test_the_output_of_a_close() -> None:
    protocol = opened()
    assert protocol.output() == (b"", False)
    receive(protocol, b"\x88\x80\0\0\0\0")
    assert protocol.output() == (b"\x88\x00", True)
    assert protocol.state is not OPEN


def test_frame() -> None:
    assert frame(b"x" * 5) == b"\x81\x05xxxxx"


def test_a_response_ends_the_connection() -> None:
    response = http_response(Reply(404, PLAIN, b"not found\n", (("Allow", "GET"),)))
    assert response.body == b"not found\n"
    headers = dict(response.headers.raw_items())
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Connection": "close",
        "Content-Length": "10",
        "Content-Type": "text/plain; charset=utf-8",
        "Allow": "GET",
    }


def test_a_response_to_head_has_the_length_but_no_body() -> None:
    response = http_response(Reply(200, PLAIN, b"text\n"), is_head=True)
    assert (response.headers["Content-Length"], response.body) == ("5", b"")


def test_a_response_with_status_304_has_no_length() -> None:
    response = http_response(Reply(304, PLAIN, b"", (("ETag", '"1f"'),)))
    assert {"ETag", "Date", "Connection"} == set(dict(response.headers.raw_items()))
    assert response.body == b""
