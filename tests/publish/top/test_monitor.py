"""What is planted is in the alarms within three polls."""

from __future__ import annotations

from collections.abc import Iterator

from agent.model import Closed, Coverage
from agent.publish.top.model import Alarm, AlarmKind, Severity
from agent.publish.top.watch import Watch

from .hosts import GUNICORN, NGINX, Host, connection, in_state, listener

POLLS = 3


def polled(host: Host, polls: int = POLLS) -> Iterator[tuple[float, list[Alarm]]]:
    """Polls of a host that reports nothing, with the alarms four times a second."""
    for _ in range(polls * 4):
        now = host.poll(0.25)
        yield now, host.watch.alarms(now)


def alarm_of(host: Host, kind: AlarmKind, polls: int = POLLS) -> Alarm | None:
    """Return the first alarm of a kind within some polls."""
    for _, alarms in polled(host, polls):
        for one in alarms:
            if one.kind is kind:
                return one
    return None


def waiting(host: Host, count: int, first: int = 100) -> None:
    for inode in range(first, first + count):
        one = connection(inode, GUNICORN)
        host.open(one)
        host.update(one, in_state(one, "CLOSE_WAIT"))


def test_nothing_is_wrong() -> None:
    host = Host(Watch(), listener(1), connection(2))
    for _, alarms in polled(host):
        assert not alarms


def test_a_leak() -> None:
    host = Host(Watch(), listener(1, GUNICORN))
    waiting(host, 13)
    alarm = alarm_of(host, AlarmKind.CLOSE_WAIT)
    assert alarm is not None
    assert alarm.text == "13 CLOSE_WAIT in gunicorn[1201], oldest 1s"
    assert alarm.severity is Severity.ALARM
    assert alarm.group is not None
    assert alarm.group.number == 1201


def test_a_leak_from_before_the_watch_is_reported_at_once() -> None:
    before = [connection(inode, GUNICORN, "CLOSE_WAIT") for inode in range(100, 113)]
    host = Host(Watch(), *before)
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "13 CLOSE_WAIT in gunicorn[1201], oldest ≥ 0s"
    host.poll(240)
    host.beat()
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "13 CLOSE_WAIT in gunicorn[1201], oldest ≥ 4m"


def test_connections_that_are_closed_in_time_are_no_leak() -> None:
    host = Host(Watch())
    for inode in range(100, 160):
        waiting(host, 1, inode)
        assert not host.watch.alarms(host.poll())
        host.close(connection(inode, GUNICORN, "CLOSE_WAIT"))


def test_a_slow_leak_is_reported_when_it_only_grew_for_a_minute() -> None:
    host = Host(Watch())
    waiting(host, 1)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 50) is None
    waiting(host, 1, 200)
    alarm = alarm_of(host, AlarmKind.CLOSE_WAIT, 20)
    assert alarm is not None
    assert alarm.text == "2 CLOSE_WAIT in gunicorn[1201], growing for 1m, oldest 1m"


def test_a_leak_that_grew_long_ago_is_not_growing() -> None:
    host = Host(Watch())
    waiting(host, 3)
    texts = []
    for second in range(75):
        if second == 10:
            waiting(host, 1, 200)
        host.beat()
        texts += [one.text for one in host.watch.alarms(host.poll())]
    assert "4 CLOSE_WAIT in gunicorn[1201], growing for 1m, oldest 1m" in texts
    assert texts[-1] == "4 CLOSE_WAIT in gunicorn[1201], oldest 1m"


def test_fewer_is_no_growth() -> None:
    host = Host(Watch())
    waiting(host, 2)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 50) is None
    host.close(connection(100, GUNICORN, "CLOSE_WAIT"))
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 5) is None
    waiting(host, 1, 200)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 20) is None


def test_growth_begins_anew_where_there_were_fewer() -> None:
    host = Host(Watch())
    waiting(host, 1)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 5) is None
    waiting(host, 1, 200)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 45) is None
    host.close(connection(200, GUNICORN, "CLOSE_WAIT"))
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 5) is None
    waiting(host, 1, 300)
    assert alarm_of(host, AlarmKind.CLOSE_WAIT, 10) is None


def test_a_full_accept_queue_of_the_records() -> None:
    host = Host(Watch())
    workers = [NGINX._replace(pid=pid) for pid in (812, 813)]
    host.open(*(listener(1, one, 129, 128, 8080) for one in workers))
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "accept queue full: *:8080 (129/128)"


def test_a_full_accept_queue_that_was_read() -> None:
    host = Host(Watch(), listener(1, GUNICORN, 0, 128, 8080))
    host.watch.alarms(host.now)
    host.watch.queues({("web1", 1): (129, 128)})
    (alarm,) = host.watch.alarms(host.poll())
    assert alarm.text == "accept queue full: *:8080 (129/128)"
    host.watch.queues({("web1", 1): (128, 128)})
    assert not host.watch.alarms(host.poll())


def churn(host: Host, polls: int, connections: int, first: int) -> Iterator[list[Alarm]]:
    for poll in range(polls):
        now = host.poll()
        host.beat()
        for number in range(connections):
            one = connection(first + poll * connections + number)
            host.open(one)
            host.close(one, seconds=0.1)
        yield host.watch.alarms(now)


def test_a_storm() -> None:
    host = Host(Watch())
    assert not any(churn(host, 40, 20, 1000))
    alarms = [*churn(host, POLLS, 200, 10_000)]
    (alarm,) = alarms[-1]
    assert alarm.kind is AlarmKind.CHURN
    assert alarm.text == "200 open/s, usually 20: most in nginx[812]"


def test_what_was_usual_ten_minutes_ago_is_not_usual_now() -> None:
    host = Host(Watch())
    assert not any(churn(host, 700, 30, 100_000))
    assert not any(churn(host, 620, 1, 200_000))
    (alarm,) = [*churn(host, POLLS, 60, 300_000)][-1]
    assert alarm.text == "60 open/s, usually 1.0: most in nginx[812]"


def test_what_is_usual_is_no_storm() -> None:
    host = Host(Watch())
    assert not any(churn(host, 40, 20, 1000))
    assert not any(churn(host, 10, 190, 10_000))


def test_a_busy_start_is_no_storm() -> None:
    assert not any(churn(Host(Watch()), 60, 200, 1000))


def test_few_connections_on_an_idle_machine_are_no_storm() -> None:
    host = Host(Watch())
    assert not any(churn(host, 60, 0, 1000))
    assert not any(churn(host, 3, 15, 1000))


def test_a_lost_agent() -> None:
    host = Host(Watch(), connection(1))
    assert not [one for _, alarms in polled(host, 35) for one in alarms]
    alarm = alarm_of(host, AlarmKind.SILENT)
    assert alarm is not None
    assert alarm.text == "no record for 35s"
    assert host.watch.header(host.now).state == "silent for 35 s"
    host.beat()
    assert not host.watch.alarms(host.now)


def test_one_silent_host_of_two() -> None:
    watch = Watch()
    web, db = Host(watch), Host(watch, name="db1", now=5e8)
    texts: list[str] = []
    for _ in range(40):
        web.beat()
        web.poll()
        texts = [one.text for one in watch.alarms(web.now)]
    assert texts == ["db1: no record for 40s"]
    assert watch.header(web.now).state == "1 host silent"
    db.beat()
    assert not watch.alarms(web.now)


def test_lost_records() -> None:
    host = Host(Watch(), connection(1))
    host.lose(1200, 1260)
    alarm = alarm_of(host, AlarmKind.LOST)
    assert alarm is not None
    assert alarm.text == "lost 1200–1260: the reader was too slow"  # noqa: RUF001
    host.lose(1300, 1309)
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "lost 1300–1309 and more, 71 changes: the reader was too slow"  # noqa: RUF001
    host.poll(60)
    host.beat()
    assert not host.watch.alarms(host.now)


def test_lost_records_of_one_host_of_two() -> None:
    watch = Watch()
    web = Host(watch)
    Host(watch, name="db1").lose(3, 4)
    assert [one.text for one in watch.alarms(web.now)] == ["db1: lost 3–4: the reader was too slow"]  # noqa: RUF001


def test_a_restarted_agent() -> None:
    host = Host(Watch(), connection(1))
    host.lose(1200, None)
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "lost: changes from 1200 on; the agent was restarted"


def test_incomplete_coverage() -> None:
    gaps = ("the descriptors of process 4 (\x1bapp) may not be read", "no netlink")
    host = Host(Watch(), coverage=Coverage(41, 1, 2, gaps))
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "1 process not read; 1 more gap"
    assert alarm.severity is Severity.NOTE
    host.change(Coverage(41, 0, 2, ("a \x1b gap",)))
    (alarm,) = host.watch.alarms(host.now)
    assert alarm.text == "a \\x1b gap"
    host.change(Coverage(41, 0, 2))
    assert not host.watch.alarms(host.now)


def test_names_of_processes_are_safe_and_hosts_are_named() -> None:
    watch = Watch()
    evil = GUNICORN._replace(comm="\x1b[2J")
    Host(watch, *(connection(inode, evil, "CLOSE_WAIT") for inode in (1, 2, 3)), name="w\n1")
    host = Host(watch, name="db1")
    (alarm,) = watch.alarms(host.now)
    assert alarm.text == "w\\x0a1: 3 CLOSE_WAIT in \\x1b[2J[1201], oldest ≥ 0s"


def test_the_most_important_is_first() -> None:
    host = Host(Watch(), coverage=Coverage(1, 0, 1, ("a gap",)))
    host.lose(1, 2)
    host.open(listener(1, GUNICORN, 129, 128))
    host.snapshot(
        listener(1, GUNICORN, 129, 128),
        *(connection(inode, GUNICORN, "CLOSE_WAIT") for inode in (2, 3, 4)),
    )
    kinds = [one.kind for one in host.watch.alarms(host.now)]
    assert kinds == ["close-wait", "queue", "lost", "coverage"]


def test_many_alarms_of_one_kind_do_not_hide_the_others() -> None:
    leaks = [
        connection(10 * pid + number, GUNICORN._replace(pid=pid), "CLOSE_WAIT")
        for pid, count in ((1, 3), (2, 5), (3, 4))
        for number in range(count)
    ]
    queues = [listener(port, GUNICORN, 9, 8, port) for port in (81, 82)]
    host = Host(Watch(), *leaks, *queues, coverage=Coverage(1, 0, 1, ("a gap",)))
    assert [one.text.partition(",")[0] for one in host.watch.alarms(host.now)] == [
        "5 CLOSE_WAIT in gunicorn[2]", "accept queue full: *:81 (9/8)", "a gap",
        "4 CLOSE_WAIT in gunicorn[3]", "accept queue full: *:82 (9/8)",
        "3 CLOSE_WAIT in gunicorn[1]",
    ]  # fmt: skip


def test_closes_end_the_alarm() -> None:
    before = [connection(inode, GUNICORN, "CLOSE_WAIT") for inode in (1, 2, 3)]
    host = Host(Watch(), *before)
    assert host.watch.alarms(host.now)
    host.change(Closed(before[0], "closed", None))
    assert not host.watch.alarms(host.now)
