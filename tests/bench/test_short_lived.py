import json

from bench.short_lived import Score, Used, closed, losses, score


def record(
    event: str,
    local: int,
    remote: int | None,
    pid: int | None = None,
    comm: str | None = None,
    proto: str = "tcp",
) -> bytes:
    fields = {"event": event, "proto": proto, "local_port": local, "remote_port": remote}
    return json.dumps({**fields, "pid": pid, "comm": comm}).encode() + b"\n"


def test_closed_yields_tcp_sockets_that_were_opened_and_closed() -> None:
    lines = (
        b'{"event":"hello"}\n'
        + record("open", 40, 80, 7, "curl")
        + record("close", 40, 80, 7, "curl")
        + record("open", 41, 80, 7, "curl")
        + record("close", 42, 80, 7, "curl")
        + record("open", 80, None, 1, "nginx")
        + record("close", 80, None, 1, "nginx")
        + record("open", 53, 50, 1, "dns", "udp")
        + record("close", 53, 50, 1, "dns", "udp")
    )
    assert list(closed(lines)) == [Used(40, 80, 7, "curl")]


def test_score_counts_each_socket_once_by_its_last_report_with_a_process() -> None:
    truth = [Used(port, 80, port, f"c{port}") for port in range(1, 7)]
    reports = [
        Used(1, 80, 1, "c1"),
        Used(2, 80, None, None),
        Used(2, 80, 2, "other"),
        Used(3, 80, None, None),
        Used(4, 80, 9, "c4"),
        Used(5, 81, 5, "c5"),
    ]
    assert score("clients", truth, reports) == Score("clients", 6, 4, 2, 1, 1, 1)
    assert score("clients", truth, reports).row() == "| clients | 6 | 4 | 2 | 1 | 1 | 1 | 66.67% |"


def test_the_ports_of_a_connection_may_be_used_again() -> None:
    truth = [Used(1, 80, pid, "curl") for pid in (5, 6, 7)]
    reports = [Used(1, 80, 7, "curl"), Used(1, 80, 5, "curl")]
    assert score("clients", truth, reports) == Score("clients", 3, 2, 2, 2, 0, 0)
    reports.append(Used(1, 80, 9, "curl"))
    assert score("clients", truth, reports) == Score("clients", 3, 3, 2, 2, 0, 1)


def test_losses_are_lost_records_and_the_events_lost_until_the_newest_heartbeat() -> None:
    assert losses(b'{"event":"hello"}\n') == (0, None)
    lines = (
        b'{"event":"lost"}\n{"event":"heartbeat","events_lost":2}\n'
        b'{"event":"heartbeat","events_lost":5}\n{"event":"lost"}\n'
    )
    assert losses(lines) == (2, 5)
