"""The screen: its keys, and its sizes."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
from textual.events import Key
from textual.geometry import Region

from agent.model import Closed, Holding
from agent.publish.top import dialogs
from agent.publish.top.model import Grouping
from agent.publish.top.places import View
from agent.publish.top.signal import NotSent, Target, target_of
from agent.stream.recording import RecordReader, open_recording, state_at

from .screens import (
    CALLED,
    CALLS,
    LISTENER,
    MARK,
    NGINX,
    SHOP,
    Script,
    hold,
    process,
    shown,
    tcp,
    web,
)

SIZES = [(40, 15), (60, 15), (80, 24), (200, 60)]


# Sizes.


@pytest.mark.parametrize("size", SIZES)
async def test_every_view_fits_the_screen(size: tuple[int, int]) -> None:
    source = web()
    source.begin(*(hold(process(n, f"worker-{n}"), tcp(n, "LISTEN", n, None, "listen"))
                   for n in range(2000, 2100)))  # fmt: skip
    source.open(CALLED, CALLS)
    async with shown(source, size) as screen:
        for keys in ((), ("enter",), ("enter",), ("e",), ("p",), ("question_mark",)):
            await screen.press(*keys)
            lines = screen.lines()
            assert len(lines) == size[1]
            assert max(map(len, lines)) <= size[0], keys
        await screen.press("escape")
        assert screen.lines()[-1].endswith("quit")


async def test_the_lines_have_their_places() -> None:
    async with shown(web(), (80, 24)) as screen:
        header, alarms, chosen, titles, first, second, *rest, keys = screen.lines()
    assert header.startswith("sockagent top  web1 22:13:20Z")
    assert header.endswith("live")
    assert alarms == "no alarms"
    assert chosen.startswith("no filter ")
    assert chosen.endswith("by process, sorted by OPEN/s")
    assert titles.split()[:2] == ["PROCESS", "PID"]
    assert first.split()[1:3] == ["gunicorn", "1201"]
    assert second.split()[:2] == ["nginx", "812"]
    assert not any(rest)
    assert keys.endswith("q quit")


async def test_a_wide_screen_has_more_columns() -> None:
    titles = []
    for width in (40, 80, 200):
        async with shown(web(), (width, 24)) as screen:
            titles.append(screen.lines()[3].split())
    assert len(titles[0]) < len(titles[1]) < len(titles[2])
    assert "UNIT" in titles[2]


async def test_another_size_is_filled() -> None:
    async with shown(web(), (80, 24)) as screen:
        for width, height in ((200, 60), (40, 12), (80, 24)):
            await screen.pilot.resize_terminal(width, height)
            await screen.settle()
            assert len(screen.lines()) == height
            assert screen.lines()[-1].endswith("quit")
            assert max(map(len, screen.lines())) <= width


# The way.


async def test_enter_opens_a_group_then_a_socket_and_escape_goes_back() -> None:
    async with shown(web()) as screen:
        first = await screen.press("down")
        assert f"{MARK} nginx" in first
        assert "sockets of nginx[812]" in await screen.press("enter")
        assert "127.0.0.1:40000" in screen.text()
        assert "127.0.0.1:8080" in screen.text()
        one = await screen.press("enter")
        assert "a socket of nginx[812]" in one
        assert "start_time    2023-11-14T22:12:20" in one
        assert "none since the screen began" in one
        assert "sockets of nginx[812]" in await screen.press("escape")
        assert await screen.press("escape") == first
        assert await screen.press("escape") == first


async def test_a_socket_shows_its_newest_events_and_that_it_is_gone() -> None:
    source = web()
    async with shown(source) as screen:
        await screen.press("enter", "enter")
        assert "a socket of gunicorn[1201]" in screen.text()
        source.leak(CALLED)
        assert "ESTABLISHED → CLOSE_WAIT" in await screen.settle()
        source.close(CALLED)
        source.time += 10
        assert "closed after 0.5 s" in await screen.settle()


async def test_events_are_of_the_row_and_follow_the_end() -> None:
    source = web()
    async with shown(source, (120, 12)) as screen:
        await screen.press("down", "e")
        assert "events of nginx[812]" in screen.text()
        for number in range(30):
            source.open(
                hold(NGINX, tcp(100 + number, "ESTABLISHED", 41_000 + number, 9, "outbound"))
            )
        source.open(hold(SHOP, tcp(99, "ESTABLISHED", 8080, 9, "inbound")))
        text = await screen.settle()
        assert "127.0.0.1:41029" in text
        assert "127.0.0.1:41000" not in text
        assert "gunicorn" not in text
        await screen.press("home")
        source.open(hold(NGINX, tcp(200, "ESTABLISHED", 42_000, 9, "outbound")))
        text = await screen.settle()
        assert "127.0.0.1:41000" in text
        assert "127.0.0.1:42000" not in text


async def test_peers_name_both_ends() -> None:
    async with shown(web()) as screen:
        text = await screen.press("p")
        assert "peers of gunicorn[1201]" in text
        (line,) = [line for line in screen.lines() if "nginx[812]" in line]
        assert line.split()[1:4] == ["1", "in", "tcp:8080"]
        assert "by process" in await screen.press("escape")


async def test_without_rows_events_are_those_of_everything() -> None:
    source = Script()
    source.begin()
    async with shown(source) as screen:
        assert "peers" not in (await screen.press("p")).splitlines()[2]
        assert "events of all" in await screen.press("e")
        source.open(CALLED)
        assert "gunicorn[1201]" in await screen.settle()


# What is shown.


async def test_g_goes_through_the_groupings() -> None:
    async with shown(web(), (200, 24)) as screen:
        for grouping in [*list(Grouping)[1:], Grouping.PROCESS]:
            assert f"by {grouping}, sorted by" in await screen.press("g")
        await screen.press("g")
        assert {line.split()[0] for line in screen.lines()[5:6]} == {"web.service"}


async def test_sockets_without_a_group_are_called_so() -> None:
    source = Script()
    source.begin(CALLED._replace(process=None))
    async with shown(source) as screen:
        assert "sockets of an unknown process, sorted" in await screen.press("enter")
        await screen.press("escape", "g", "g", "enter")
        assert "sockets without a container, sorted" in screen.text()
        assert "events without a container" in await screen.press("e")


async def test_s_sorts_by_the_next_column_and_capital_s_turns_it() -> None:
    async with shown(web()) as screen:
        await screen.press("g", "g", "g", "g", "g", "g", "g", "g")
        seen = []
        for _ in screen.lines()[3].split():
            text = await screen.press("s")
            seen.append(text.splitlines()[2].rpartition("sorted by ")[2])
        assert len(set(seen)) == len(seen)
        while "sorted by PROCESS" not in screen.text():
            await screen.press("s")
        assert screen.text().index("gunicorn") < screen.text().index("nginx")
        turned = await screen.press("S")
        assert turned.index("nginx") < turned.index("gunicorn")


async def test_a_column_that_is_not_shown_is_named_by_its_title() -> None:
    async with shown(web(), (80, 24)) as screen:
        while "sorted by CLOSE/s" not in screen.text():
            await screen.press("s")
        await screen.pilot.resize_terminal(40, 24)
        await screen.settle()
        assert "CLOSE/s" not in screen.lines()[3]
        assert "sorted by CLOSE/s" in screen.text()


async def test_rows_without_the_column_that_was_sorted_by_are_sorted_by_the_first_one() -> None:
    async with shown(web(), (80, 24)) as screen:
        while "sorted by PID" not in screen.text():
            await screen.press("s")
        text = await screen.press("g")
        assert "by unit, sorted by UNIT" in text
        assert "UNIT▲" in text


async def test_the_first_rows_and_those_of_another_filter_are_sorted_at_once() -> None:
    source = Script()
    async with shown(source) as screen:
        source.begin(CALLS, LISTENER, CALLED)  # gunicorn has more sockets.
        text = await screen.settle()
        assert text.index("gunicorn") < text.index("nginx")
        await screen.press("slash", *"nginx", "enter")
        text = await screen.press("slash", "ctrl+u", "enter")
        assert text.index("gunicorn") < text.index("nginx")


@pytest.mark.parametrize("keys", ["down", "d", "w", "space space", "k escape", "click"])
async def test_the_order_is_held_after_each_key(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, now = web(), 100.0
    async with shown(source) as screen:
        monkeypatch.setattr(screen.app, "_order_time", lambda: now)
        screen.app._contents._sorting(View.GROUPS).order.renew()
        source.time += 1
        await screen.settle()  # The rows are sorted now.
        now += 1
        for number in range(20):
            source.open(hold(NGINX, tcp(100 + number, "ESTABLISHED", number, 9, "outbound")))
        if keys == "click":
            await screen.pilot.click("#grid", offset=(5, 1))
        await screen.press(*([] if keys == "click" else keys.split()))
        source.time += 1
        now += 1.5  # Without the key, the order might change by now.
        text = await screen.settle()
        assert text.index("gunicorn") < text.index("nginx")
        source.time += 1
        now += 1
        text = await screen.settle()
        assert text.index("nginx") < text.index("gunicorn")


async def test_the_cursor_stays_on_its_row() -> None:
    source = web()
    async with shown(source) as screen:
        assert f"{MARK} nginx" in await screen.press("down")
        source.close(CALLED, LISTENER)
        source.time += 10
        text = await screen.settle()
        assert "gunicorn" not in text
        assert f"{MARK} nginx" in text


async def test_the_cursor_stays_on_the_first_line_until_it_is_moved() -> None:
    source = web()
    more = [hold(NGINX, tcp(n, "ESTABLISHED", n, 9, "outbound")) for n in range(100, 120)]
    async with shown(source) as screen:
        assert screen.lines()[4].startswith(f"{MARK} gunicorn")
        await screen.press("s", "s")  # Another order at once.
        source.open(*more)
        while "sorted by OUT" not in screen.text():
            await screen.press("s")
        assert screen.lines()[4].startswith(f"{MARK} nginx")
        await screen.press("down", "up")
        source.close(*more, CALLS)
        source.open(hold(SHOP, tcp(99, "ESTABLISHED", 99, 9, "outbound")))
        await screen.press("S", "S")
        assert screen.lines()[4].startswith("  gunicorn")
        assert f"{MARK}" in screen.lines()[5]


async def test_the_cursor_moves_by_pages_and_stays_visible() -> None:
    source = Script()
    source.begin(*(hold(process(n, f"worker-{n}"), tcp(n, "LISTEN", n, None, "listen"))
                   for n in range(2000, 2100)))  # fmt: skip
    async with shown(source, (80, 15)) as screen:
        seen = set()
        for key in ("end", "pageup", "up", "home", "pagedown", "down"):
            text = await screen.press(key)
            (line,) = [line for line in text.splitlines() if line.startswith(MARK)]
            seen.add(line)
        assert len(seen) == 6


async def test_only_visible_lines_are_made() -> None:
    source = Script()
    source.begin(*(hold(process(n, f"worker-{n}"), tcp(n, "LISTEN", n, None, "listen"))
                   for n in range(2000, 4000)))  # fmt: skip
    async with shown(source, (80, 24)) as screen:
        await screen.press("end", "home", "pagedown")
        assert len(screen.app._grid._lines) < 100


# The filter.


async def test_the_filter_applies_while_it_is_typed() -> None:
    async with shown(web()) as screen:
        await screen.press("slash", *"nginx")
        assert "gunicorn" not in screen.text()
        assert "nginx" in screen.lines()[4]
        await screen.press("enter")
        assert screen.lines()[2].startswith("filter: nginx")
        assert "by process" in screen.text()
        await screen.press("slash", "ctrl+u", "enter")
        assert "gunicorn" in screen.text()


async def test_keys_that_are_pressed_at_once_are_the_filter() -> None:
    async with shown(web()) as screen:
        keys = [("slash", "/"), *((char, char) for char in "pgq"), ("enter", "\r")]
        for key, char in keys:  # Without a turn of the event loop between them.
            screen.app.post_message(Key(key, char))
        await screen.settle()
        assert screen.lines()[2].startswith("filter: pgq")
        assert not screen.app._exit


async def test_no_rows_say_why_and_escape_clears_the_filter() -> None:
    async with shown(web(), chosen="leaky x") as screen:
        assert "  No socket matches leaky x; Esc clears the filter" in screen.lines()
        text = await screen.press("slash", *"nosuch")
        assert "No socket matches nosuch\n" in re.sub(" *\n", "\n", text)
        await screen.press("escape", "escape")
        assert screen.lines()[2].startswith("no filter")
        assert "No socket" not in screen.text()
        assert "gunicorn" in screen.text()
        await screen.press("down", "e")
        assert "  No event yet" in screen.lines()
        await screen.press("slash", *"port=1", "enter")
        assert "  No event matches port=1; Esc goes back" in screen.lines()
        await screen.press("escape")
        assert screen.lines()[2].startswith("filter: port=1")


async def test_without_connections_no_peer_is_known() -> None:
    source = Script()
    source.begin(LISTENER)
    async with shown(source, (40, 12)) as screen:
        assert "  No peer is known" in (await screen.press("p")).splitlines()
        await screen.press("escape", "slash", *"a-long-filter-of-many-letters", "enter")
        assert "  No socket matches a-long-fi…y-letters" in screen.lines()


async def test_without_records_there_is_nothing_yet() -> None:
    async with shown(Script()) as screen:
        assert "  Nothing yet" in screen.lines()


async def test_what_is_typed_replaces_the_filter() -> None:
    async with shown(web(), chosen="nginx") as screen:
        await screen.press("slash", *"gunicorn", "enter")
        assert screen.lines()[2].startswith("filter: gunicorn")
        await screen.press("slash", "end", *" :1", "enter")
        assert screen.lines()[2].startswith("filter: gunicorn :1")
        await screen.press("slash", "ctrl+u", "enter")
        assert screen.lines()[2].startswith("no filter")


async def test_escape_restores_the_filter_before() -> None:
    async with shown(web(), chosen="port=8080") as screen:
        assert screen.lines()[2].startswith("filter: port=8080")
        await screen.press("slash", "ctrl+u", *"nosuch")
        assert "nginx" not in screen.text()
        await screen.press("escape")
        assert screen.lines()[2].startswith("filter: port=8080")
        assert "nginx" in screen.text()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [("port=x", "port"), ("prot=tcp", "did you mean 'proto'?"), (":x", "expected for example 443")],
)
async def test_a_wrong_filter_is_explained(typed: str, sentence: str) -> None:
    async with shown(web(), (120, 24)) as screen:
        await screen.press("slash", *typed, "enter")
        assert sentence in screen.lines()[-1]
        await screen.press("escape")
        assert screen.lines()[2].startswith("no filter")
        assert "gunicorn" in screen.text()


async def test_keys_are_text_while_the_filter_is_edited() -> None:
    async with shown(web()) as screen:
        await screen.press("slash", *"gskq")
        await screen.press("enter")
        assert screen.lines()[2].startswith("filter: gskq")
        assert not screen.app._exit


# Holding still.


async def test_a_pause_holds_the_screen_and_counts_what_happens() -> None:
    source = web()
    async with shown(source) as screen:
        text = await screen.press("space")
        assert "paused, 0 events behind" in text
        source.close(CALLED, LISTENER)
        source.open(hold(process(7, "late"), tcp(7, "LISTEN", 7, None, "listen")))
        source.time += 10
        text = await screen.settle()
        assert "paused, 3 events behind" in text
        assert "gunicorn" in text
        assert "late" not in text
        assert f"{MARK} nginx" in await screen.press("down")
        text = await screen.press("space")
        assert "paused" not in text
        assert "gunicorn" not in text
        assert "late" in text


async def test_what_a_paused_screen_shows_anew_is_not_behind() -> None:
    source = web()
    async with shown(source) as screen:
        await screen.press("space")
        source.watch.queues({("web1", 1): (3, 128)})  # No event.
        assert "paused, 0 events behind" in await screen.settle()
        source.close(CALLED)
        assert "paused, 1 event behind" in await screen.settle()
        assert "paused, 0 events behind" in await screen.press("s")
        source.close(LISTENER)
        assert "paused, 1 event behind" in await screen.settle()


async def test_a_recording_is_not_paused() -> None:
    source = web()
    source.is_live = source.is_local = False
    async with shown(source, (120, 24)) as screen:
        assert "pause" not in screen.lines()[-1]
        text = await screen.press("space")
        assert text.splitlines()[-1] == "only the arrow keys move a recording"
        assert "paused" not in text


async def test_nothing_is_repainted_while_nothing_changes() -> None:
    async with shown(web()) as screen:
        painted: list[Region] = []
        for widget in screen.app.screen.query("Bar, Grid"):
            widget.refresh = lambda *regions, **_options: painted.append(regions)  # type: ignore[assignment, arg-type]
        await screen.settle()
        screen.app._is_stale = True  # Not even if everything is made again.
        await screen.settle()
        assert painted == []


async def test_everything_is_drawn_again_when_the_process_goes_on() -> None:
    async with shown(web()) as screen:
        drawn: list[str | None] = []

        def note(name: str | None, *_regions: Region, **_options: bool) -> None:
            drawn.append(name)

        for widget in screen.app.screen.query("Bar, Grid"):
            widget.refresh = partial(note, widget.id)  # type: ignore[assignment]
        screen.app.app_resume_signal.publish(screen.app)
        await screen.settle()
        assert sorted(map(str, drawn)) == ["alarms", "filter", "footer", "grid", "header", "titles"]


async def test_ended_rows_stay_and_are_marked() -> None:
    source = web()
    async with shown(source, (200, 24)) as screen:
        source.change(*(Closed(one, "exited", 0.5) for one in (CALLED, LISTENER)))
        source.time += 2
        (line,) = [line for line in (await screen.settle()).splitlines() if "gunicorn" in line]
        assert line.startswith(f"{MARK}✗")
        source.time += 5
        assert "gunicorn" not in await screen.settle()


# Alarms, the source, and messages.


async def test_a_leak_and_a_full_queue_are_on_the_alarm_line() -> None:
    source = web()
    held = [hold(SHOP, tcp(n, "ESTABLISHED", 8080, n, "inbound")) for n in range(500, 513)]
    source.open(*held)
    async with shown(source, (160, 24)) as screen:
        for one in held:
            source.leak(one)
        source.watch.queues({("web1", 1): (129, 128)})
        source.time += 2
        alarms = (await screen.settle()).splitlines()[1]
        assert "13 CLOSE_WAIT in gunicorn[1201]" in alarms
        assert "accept queue full: 127.0.0.1:8080 (129/128)" in alarms


async def test_why_nothing_comes_is_in_the_first_line() -> None:
    source = web()
    async with shown(source, (120, 24)) as screen:
        source.said = "cut off since 03:12:04, connection lost"
        assert (await screen.settle()).splitlines()[0].endswith(source.said)


@pytest.mark.parametrize("width", [20, 40, 80])
async def test_without_records_there_are_no_numbers(width: int) -> None:
    source = Script(is_local=False, is_live=False)
    source.said = "reading the recording"
    async with shown(source, (width, 24)) as screen:
        header = screen.lines()[0]
    assert header == {20: "reading the recordi…"}.get(width, f"sockagent top  {source.said}")


@pytest.mark.parametrize("width", [40, 41, 60, 80, 120])
async def test_the_scroll_bar_covers_no_digit(width: int) -> None:
    source = Script()
    source.begin(*(hold(process(n, "worker"), tcp(1000 * n + m, "CLOSE_WAIT", 80, m, "inbound"))
                   for n in range(2000, 2015) for m in range(123)))  # fmt: skip
    async with shown(source, (width, 12)) as screen:
        rows = [line[: width - 1].split() for line in screen.lines()[4:-1]]
    assert all(row.count("123") == 2 for row in rows)  # Of IN and CW.


async def test_queues_of_records_are_named_so() -> None:
    source = web()
    source.is_local = False
    async with shown(source, (120, 24)) as screen:
        assert "queues at record time" in screen.lines()[2]
    async with shown(web(), (120, 24)) as screen:
        assert "at record time" not in screen.text()


async def test_messages_are_in_the_last_line_one_after_the_other() -> None:
    async with shown(web(), (120, 24)) as screen:
        screen.app.add_message("first\x1b[2J")
        screen.app.add_message("second")
        assert (await screen.settle()).splitlines()[-1] == r"first\x1b[2J"
        assert (await screen.press("down")).splitlines()[-1] == "second"
        assert (await screen.press("down")).splitlines()[-1].endswith("quit")


async def test_the_arrow_keys_move_in_a_recording() -> None:
    source = web()
    source.is_live = source.is_local = False
    async with shown(source, (120, 24)) as screen:
        assert "←→ time" in screen.lines()[-1]
        await screen.press("left", "shift+left", "right", "shift+right")
        assert source.moves == [-1.0, -60.0, 1.0, 60.0]


async def test_each_moment_of_a_recording_is_sorted() -> None:
    source = web()
    source.is_live = source.is_local = False
    async with shown(source, (120, 24)) as screen:
        assert screen.text().index("gunicorn") < screen.text().index("nginx")
        source.time += 1
        for number in range(20):
            source.open(hold(NGINX, tcp(100 + number, "ESTABLISHED", number, 9, "outbound")))
        text = await screen.settle()
        assert text.index("nginx") < text.index("gunicorn")


async def test_several_hosts_have_a_column() -> None:
    source = Script(is_local=False)
    source.begin(CALLED, host="web1")
    source.begin(CALLS, host="web2")
    async with shown(source, (120, 24)) as screen:
        assert "HOST" in screen.lines()[3]
        assert "web1" in screen.text()
        assert "web2" in screen.text()


# Signals.


class Sender:
    """Stands for what sends signals."""

    def __init__(self, problem: str | None = None) -> None:
        self.sent: list[tuple[Target, int]] = []
        self._problem = problem

    def __call__(self, target: Target, number: int) -> None:
        if self._problem is not None:
            raise NotSent(self._problem)
        self.sent.append((target, number))


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    sender = Sender()
    monkeypatch.setattr(dialogs, "send", sender)
    return sender


@pytest.mark.parametrize(("word", "number"), [("TERM", 15), ("KILL", 9)])
async def test_a_signal_must_be_typed_out(word: str, number: int, sender: Sender) -> None:
    async with shown(web()) as screen:
        text = await screen.press("down", "k")
        for part in ("nginx[812]", "pid      812", "2023-11-14 22:12:20", "web.service"):
            assert part in text
        assert "expected TERM or KILL" in await screen.press(*word.lower(), "enter")
        assert sender.sent == []
        text = await screen.press("ctrl+u", *word, "enter")
        assert sender.sent == [(target_of(NGINX), number)]
        assert f"{word} was sent to nginx[812]" in text


async def test_escape_sends_nothing(sender: Sender) -> None:
    async with shown(web()) as screen:
        text = await screen.press("k", *"KILL", "escape")
        assert "Send a signal" not in text
    assert sender.sent == []


async def test_why_nothing_was_sent_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogs, "send", Sender("nginx[812] has ended"))
    async with shown(web()) as screen:
        text = await screen.press("down", "k", *"TERM", "enter")
        assert text.splitlines()[-1] == "nothing was sent: nginx[812] has ended"


async def test_a_socket_leads_to_its_process(sender: Sender) -> None:
    async with shown(web()) as screen:
        await screen.press("down", "enter", "k", *"TERM", "enter")
        await screen.press("enter", "k", *"KILL", "enter")
    assert [target.pid for target, _number in sender.sent] == [812, 812]


async def test_rows_of_several_processes_get_no_signal(sender: Sender) -> None:
    async with shown(web()) as screen:
        text = await screen.press("g", "k")
        assert text.splitlines()[-1] == "the cursor is on no single process"
        assert "signal is" not in text


async def test_signals_can_be_off(sender: Sender) -> None:
    async with shown(web(), (120, 24), no_signals="--read-only") as screen:
        assert "signal" not in screen.lines()[-1]
        assert (await screen.press("k")).splitlines()[-1] == "signals are off: --read-only"
        assert len(screen.app.screen_stack) == 1


async def test_what_is_typed_at_once_after_k_is_the_signal(sender: Sender) -> None:
    async with shown(web()) as screen:
        keys = [("k", "k"), *((char, char) for char in "TERM"), ("enter", "\r")]
        for key, char in keys:  # Without a turn of the event loop between them.
            screen.app.post_message(Key(key, char))
        await screen.settle()
        assert [number for _target, number in sender.sent] == [15]


# The rest.


async def test_w_writes_what_passes_the_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(web(), (120, 24), chosen="nginx") as screen:
        message = (await screen.press("w")).splitlines()[-1]
        assert message == "1 socket written to sockagent-20231114T221320Z.ndjson"
        again = (await screen.press("w")).splitlines()[-1]
        assert again == "nothing was written: File exists"
    path = tmp_path / "sockagent-20231114T221320Z.ndjson"
    assert json.loads(path.read_text())["comm"] == "nginx"
    with open_recording(str(path)) as file:
        assert len(state_at(RecordReader(file))) == 1


async def test_names_replace_numbers() -> None:
    services = {("tcp", 8080): "http-alt"}
    async with shown(web(), (120, 24), services=services) as screen:
        assert "127.0.0.1:8080" in await screen.press("down", "enter")
        assert ":http-alt" in await screen.press("d")
        assert ":http-alt" not in await screen.press("d")


async def test_names_are_looked_up_wherever_addresses_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    async with shown(web(), (120, 24), names=True) as screen:
        monkeypatch.setattr(screen.app._resolver, "request_addresses", asked.extend)
        await screen.press("d", "d")
        assert not asked
        for keys in (("p",), ("escape", "enter"), ("enter",), ("escape", "escape", *"ggggg")):
            asked.clear()
            await screen.press(*keys)
            assert "127.0.0.1" in asked, keys
        asked.clear()
        source = screen.app._source
        assert isinstance(source, Script)
        source.close(CALLS)
        await screen.press("g", "g", "g", "down", "e")
        assert "127.0.0.1" in asked


@pytest.mark.parametrize("key", ["escape", "q", "question_mark"])
async def test_the_help_lists_the_keys_and_closes(key: str) -> None:
    async with shown(web()) as screen:
        text = await screen.press("question_mark")
        for word, _meaning in dialogs.KEYS[:5]:
            assert word in text
        assert "Enter       open a group" not in await screen.press(key)
        assert len(screen.app.screen_stack) == 1


@pytest.mark.parametrize("keys", [("q",), ("ctrl+c",), ("slash", "ctrl+c"), ("k", "ctrl+c")])
async def test_the_screen_ends(keys: tuple[str, ...]) -> None:
    async with shown(web()) as screen:
        await screen.pilot.press(*keys)
        await screen.pilot.pause()
        assert screen.app._exit
        assert screen.app.failure is None


async def test_a_mouse_selects_then_opens() -> None:
    async with shown(web()) as screen:
        await screen.pilot.click("#grid", offset=(5, 1))
        assert f"{MARK} nginx" in await screen.settle()
        await screen.pilot.click("#grid", offset=(5, 1))
        assert "sockets of nginx[812]" in await screen.settle()


def evil(text: str) -> Holding:
    return hold(process(666, text, text), tcp(666, "LISTEN", 666, None, "listen", interface=text))


@pytest.mark.parametrize("ascii", [False, True])
async def test_no_control_character_reaches_the_terminal(ascii: bool) -> None:
    source = Script()
    source.begin(evil("\x1b[2J\x07\x9b2J\u202e[red]"))
    async with shown(source, (200, 24), ascii=ascii) as screen:
        for key in ("home", "enter", "enter", "e", "escape", "k"):
            await screen.press(key)
            for part in screen.segments():
                assert part.text.isprintable(), key
                assert part.text.isascii() or not ascii, key
            assert "\u202e" not in screen.text()
            assert r"\x1b[2J\x07" in screen.text()
            assert "[red]" in screen.text()
