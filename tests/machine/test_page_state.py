"""What the page shows equals what ``--connect`` gives: after churn, cuts, losses and restarts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ..browser import Tab
from .helpers import Holder
from .live import Agent
from .pages import Connected, Page, wait_until, wait_until_equal
from .proxy import Proxy

# All holders together hold as many sockets as section "Acceptance" of the page asks for.
HOLDERS, EACH = 5, 4000
CHURN = 3000
# The history keeps 10,000 changes, and all of the last five seconds.
HISTORY_RECORDS, HISTORY_SECONDS = 10_000, 5.0
SELECTED_INDEX = """
Number(document.querySelector("[role=row][aria-selected=true]")?.getAttribute("aria-rowindex"))
"""
COUNTS = ["3", "sockets", "3", "listen", "0", "in", "0", "out"]
# The state of the line that a screen reader has.
HEARD = "document.getElementById('announcements').textContent.split(';')[0]"
OPEN_MANY = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
many = [socket.socket(socket.AF_UNIX) for _ in range({count} // 2)]
for _ in range({count} // 4):
    many += socket.socketpair()
"""


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


def churn(holder: Holder, connected: Connected) -> None:
    """Open and close sockets; wait until both were reported."""
    for event, code in (
        ("open", f"burst = [socket.socket() for _ in range({CHURN})]"),
        ("close", "while burst: burst.pop().close()"),
    ):
        before = connected.events.count(event)
        holder.do(code)
        connected.wait_for(event, before + CHURN)


def test_the_page_shows_all_sockets_of_the_machine(tab: Tab, agent: Agent, holder: Holder) -> None:
    page = Page(tab, agent.address)
    with Connected(agent.address) as connected:
        page.live()
        holder.do("here = socket.create_server(('127.0.0.1', 0))")
        inode = holder.do("inode(here)")
        page.wait_for_state(lambda state: inode in {key[2] for key in state["rows"]})
        rows = wait_until_equal(page, connected)
        assert (holder.pid, inode) in {(pid, inode) for _host, pid, inode in rows}
        holder.do("here.close()")
        page.wait_for_state(lambda state: inode not in {key[2] for key in state["rows"]})
        wait_until_equal(page, connected)
    page.check()


def test_the_table_has_each_row_once(tab: Tab, agent: Agent, holder: Holder) -> None:
    holder.do("many = [tcp_listener(OWN) for _ in range(200)]")
    ports = holder.do("[one.getsockname()[1] for one in many]")
    page = Page(tab, agent.address).live(f"?pid={holder.pid}")
    page.wait_for_rows(200)
    assert 5 < len(page.shown_rows()) < 100
    seen: set[str] = set()
    page.focus_on("grid", "sockets")
    tab.press("Home")
    while True:
        ends = [
            cell for row in page.shown_rows() for cell in row if cell.startswith(holder.address)
        ]
        assert len(ends) == len(set(ends))
        seen |= set(ends)
        at = tab.evaluate(SELECTED_INDEX)
        if at == 201:  # The head is row 1.
            break
        tab.press("PageDown")
        wait_until(lambda: tab.evaluate(SELECTED_INDEX) > at, page.shown_rows)  # noqa: B023
    assert seen == {f"{holder.address}:{port}" for port in ports}
    # Rows that go and come are shown, and those that stay are not shown again.
    tab.press("Home")
    for change in ("while len(many) > 20: many.pop().close()", "many += [tcp_listener(OWN)]"):
        holder.do(change)
        left = holder.do("[one.getsockname()[1] for one in many]")

        def shown_ends() -> list[str]:
            cells = [cell for row in page.shown_rows() for cell in row]
            return sorted(cell for cell in cells if cell.startswith(holder.address))

        expected = sorted(f"{holder.address}:{port}" for port in left)
        wait_until(lambda: shown_ends() == expected, shown_ends)  # noqa: B023
        assert page.row_count() == len(expected)
    page.check()


def test_twenty_thousand_rows_after_churn_a_cut_and_a_loss(tab: Tab, agent: Agent) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(Holder()) for _ in range(HOLDERS)]
        for holder in holders:
            holder.do(OPEN_MANY.format(count=EACH))
        churner = holders[0]
        pids = ",".join(str(holder.pid) for holder in holders)
        connected = stack.enter_context(Connected(agent.address, "--pid", pids))
        connected.wait_for("snapshot_end")
        proxy = stack.enter_context(Proxy(agent.address))
        page = Page(tab, proxy.address).live(f"?pid={pids}")
        wait_until_equal(page, connected, HOLDERS * EACH)
        churn(churner, connected)
        wait_until_equal(page, connected, HOLDERS * EACH)

        proxy.refuse()
        page.wait_for_line("cut off since")
        churner.do("while len(many) > 1000: many.pop().close()")
        connected.wait_for("close", CHURN + EACH - 1000)
        proxy.accept()
        page.wait_for_text("#line-notice", "resumed, nothing missed")
        page.wait_for_line("live")
        assert page.hosts()[0]["lost"] == []
        churner.do(OPEN_MANY.format(count=EACH))
        wait_until_equal(page, connected, HOLDERS * EACH)

        proxy.hold()
        enough = len(connected.events) + 2 * HISTORY_RECORDS
        while len(connected.events) < enough:
            churn(churner, connected)
        end = time.monotonic() + HISTORY_SECONDS + 1.0
        while time.monotonic() < end:
            churn(churner, connected)
        proxy.release()
        page.wait_for_text("#line-notice", "lost")
        wait_until_equal(page, connected, HOLDERS * EACH)
    page.check()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_restarted_agent_begins_anew(tab: Tab, agent: Agent, holder: Holder, way: str) -> None:
    page = Page(tab, agent.address).live(f"?pid={holder.pid}")
    holder.do("many = [tcp_listener(OWN) for _ in range(20)]")
    with Connected(agent.address, "--pid", str(holder.pid)) as connected:
        connected.wait_for("snapshot_end")
        wait_until_equal(page, connected, 20)
        if way == "kill":
            agent.crash()
        else:
            agent.stop()
        page.wait_for_line("cut off since")
        assert tab.evaluate("document.body.className") == "cut-off"
        # What was open is still shown, and what is no longer open goes when the agent is back.
        wait_until(lambda: page.row_count() == 20, page.row_count)
        holder.do("while len(many) > 10: many.pop().close()")
        agent.start_again()
        page.wait_for_text("#line-notice", "began anew")
        page.wait_for_line("live")
        assert tab.evaluate("document.body.className") == ""
        connected.wait_for("snapshot_end", 2)
        rows = wait_until_equal(page, connected, 10)
        assert len([key for key in rows if key[1] == holder.pid]) == 10
        wait_until(lambda: page.row_count() == len(page.shown_rows()) == 10, page.row_count)
    page.check()


def test_an_agent_that_says_nothing_is_stale(tab: Tab, agent: Agent, holder: Holder) -> None:
    page = Page(tab, agent.address).live(f"?pid={holder.pid}")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        # A minute later.
        tab.evaluate("""
            const [date, time] = [Date.now.bind(Date), performance.now.bind(performance)];
            Date.now = () => date() + 60000;
            performance.now = () => time() + 60000;
        """)
        page.wait_for_line("stale")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    holder.do("here = socket.socket()")
    page.wait_for_line("live")
    page.check()


def test_a_pause_holds_the_screen_and_then_goes_on(tab: Tab, agent: Agent, holder: Holder) -> None:
    holder.do("many = [tcp_listener(OWN) for _ in range(3)]")
    page = Page(tab, agent.address).live(f"?pid={holder.pid}")
    page.wait_for_rows(3)
    shown = page.shown_rows()
    assert page.text("#counts").split() == COUNTS
    tab.press(" ")
    page.wait_for_line("paused (0 behind)")
    holder.do("many += [tcp_listener(OWN) for _ in range(4)]")
    page.wait_for_line("paused (4 behind)")
    holder.do("many.pop().close()")
    page.wait_for_line("paused (5 behind)")
    # The age of a row may still be written.
    assert [row[:-1] for row in page.shown_rows()] == [row[:-1] for row in shown]
    page.wait_for_state(lambda state: len(state["rows"]) == 6)
    assert page.text("#counts").split() == COUNTS
    wait_until(lambda: tab.evaluate(HEARD) == page.line(), lambda: tab.evaluate(HEARD))
    # What is behind is shown when another view is.
    tab.press("3")
    page.wait_for_line("paused (0 behind)")
    assert page.text("#counts").split() == ["6", *COUNTS[1:2], "6", *COUNTS[3:]]
    tab.press("1")
    tab.click("Go on", "button")
    page.wait_for_line("live")
    wait_until(lambda: page.row_count() == len(page.shown_rows()) == 6, page.shown_rows)
    page.check()
