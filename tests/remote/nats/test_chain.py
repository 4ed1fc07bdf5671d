"""Chains of messages: single verdicts, and any sequence of what can happen to a fleet."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.model import Holding
from agent.remote.nats.chain import (
    MAX_ENDED,
    Action,
    Chains,
    HostPosition,
    Missing,
    Verdict,
    judge,
)
from agent.stream.fleet import Link
from tests.feeding import ONE, THREE, TWO
from tests.fleet import Consumer, Log, Publisher, Truth, check
from tests.make import holding, tcp
from tests.relaying import Agent

MINE = HostPosition("e", 10, "r.5", in_step=True, whole=True)


def link(
    after: int = 10,
    through: int = 12,
    previous: str = "r.5",
    flags: str = "w",
    *,
    epoch: str = "e",
    id: str = "r.6",
) -> Link:
    return Link(epoch, after, through, previous, 1, "b" in flags, "w" in flags, id)


@pytest.mark.parametrize(
    ("message", "action"),
    [
        (link(), Action.PASS),
        (link(10, 10), Action.PASS),  # A heartbeat.
        (link(10, 10, "r.9"), Action.DROP),
        (link(5, 9, "r.2"), Action.DROP),
        (link(10, 10, id="r.5"), Action.DROP),
        (link(10, 12, "r.9"), Action.PASS),  # What precedes it was passed on by other messages.
        (link(8, 12, "r.9"), Action.PASS_LATER),
        (link(11, 12, "r.9"), Action.READ_AGAIN),
        (link(11, 11, "r.9", "b"), Action.PASS_ANEW),
        (link(10, 10, "r.9", "b"), Action.DROP),
        (link(10, 10, "r.5", "b"), Action.PASS),
        (link(0, 3, "r.9", epoch="f"), Action.READ_AGAIN),
        (link(3, 3, "r.9", "b", epoch="f"), Action.PASS_ANEW),
        (link(3, 3, "r.5", "b", epoch="f"), Action.PASS),
    ],
)
def test_a_message_is_judged_by_what_precedes_it(message: Link, action: Action) -> None:
    assert judge(MINE, message)[0].action is action


def test_changes_behind_a_snapshot_that_is_cut_off_are_read_again() -> None:
    cut = MINE._replace(whole=False)
    assert judge(cut, link(10, 12, "r.9"))[0].action is Action.READ_AGAIN
    assert judge(cut, link(8, 12, "r.9"))[0].action is Action.READ_AGAIN
    assert judge(cut, link(10, 10, "r.9", "b"))[0].action is Action.PASS_ANEW
    assert judge(cut, link(10, 10, "r.9", "b"), checkpoints=False)[0].action is Action.PASS_ANEW
    # A part of another snapshot does not fit.
    assert judge(cut, link(10, 10, "r.9", "-"))[0].action is Action.DROP


@pytest.mark.parametrize(
    ("after", "lost"), [(10, None), (11, Missing(11, 11)), (14, Missing(11, 14))]
)
def test_what_precedes_a_beginning_is_lost(after: int, lost: Missing | None) -> None:
    cut = MINE._replace(whole=False)
    verdict, position = judge(cut, link(after, after, "r.9", "b"))
    assert verdict == (Action.PASS_ANEW, 0, lost)
    assert position == ("e", after, "r.6", True, False, ())


def test_a_gap_that_cannot_be_read_is_lost_once_and_the_host_is_silent() -> None:
    chains = Chains({"a": MINE})
    behind = link(20, 22, "r.9", id="r.10")
    assert chains.take("a", behind).action is Action.READ_AGAIN
    verdict = chains.take("a", behind, again=True)
    assert (verdict.action, verdict.lost) == (Action.DROP, Missing(11, 22))
    assert chains.take("a", link(22, 23, "r.10", id="r.11")) == (Action.DROP, 0, None)
    verdict = chains.take("a", link(30, 30, "r.20", "b", id="r.21"))
    assert (verdict.action, verdict.lost) == (Action.PASS_ANEW, Missing(23, 30))


def test_a_silent_host_begins_anew_also_behind_the_message_that_was_not_passed_on() -> None:
    silent = MINE._replace(in_step=False, whole=False)
    assert judge(silent, link(12, 12, "r.5", "b"))[0] == (Action.PASS_ANEW, 0, Missing(11, 12))
    assert judge(silent, link(12, 12, "r.5", "b", epoch="f"))[0] == (
        Action.PASS_ANEW, 0, Missing(11, None)
    )  # fmt: skip
    for again in (False, True):
        verdict, position = judge(silent, link(3, 4, "r.5", epoch="f"), again=again)
        assert (verdict, position) == (Verdict(Action.DROP), silent)


def test_the_ends_of_some_runs_of_the_agent_are_remembered() -> None:
    position: HostPosition | None = MINE
    for run in range(MAX_ENDED + 1):
        _, position = judge(position, link(run, run, "-", "bw", epoch=f"f{run}"))
    assert position is not None
    assert position.ended == tuple((f"f{run}", run) for run in range(MAX_ENDED))
    # A run that goes on has not ended.
    _, position = judge(position, link(2, 2, "-", "bw", epoch="f2"))
    assert position is not None
    assert "f2" not in dict(position.ended)
    assert dict(position.ended)[f"f{MAX_ENDED}"] == MAX_ENDED


def test_another_run_of_the_agent_ends_the_one_before() -> None:
    chains = Chains({"a": MINE})
    verdict = chains.take("a", link(0, 0, "r.9", "b", epoch="f"))
    assert verdict.lost == Missing(11, None)
    # A message of the ended run that is read again was passed on before.
    assert chains.take("a", link(8, 10, "r.4", "bw"), again=True).action is Action.DROP
    assert chains.take("a", link(10, 12, "r.5"), again=True).action is Action.DROP


def test_a_host_of_which_nothing_is_known_begins_with_a_snapshot() -> None:
    chains = Chains()
    assert chains.take("a", link()).action is Action.READ_AGAIN
    assert chains.take("a", link(), again=True) == (Action.DROP, 0, None)
    assert chains.take("a", link(12, 13, "r.6", id="r.7")) == (Action.DROP, 0, None)
    verdict = chains.take("a", link(20, 20, "r.8", "b", id="r.9"))
    assert (verdict.action, verdict.lost) == (Action.PASS_ANEW, None)


def test_repeated_snapshots_are_left_out_where_nobody_wants_them() -> None:
    chains = Chains({"a": MINE}, checkpoints=False)
    assert chains.take("a", link(10, 10, "r.5", "b")).action is Action.DROP
    assert chains.take("a", link(10, 10, "r.6", "w", id="r.7")).action is Action.DROP
    assert chains.take("a", link(10, 11, "r.7", id="r.8")).action is Action.PASS


HOLDINGS = [ONE, TWO, THREE, *(holding(tcp(one, local_port=one)) for one in range(4, 8))]
states = st.sets(st.sampled_from(range(len(HOLDINGS))), max_size=5)
few = st.integers(1, 12)


class Fleet(RuleBasedStateMachine):
    """Two hosts, of which the first has two agents of one name at times. Everything may be killed,
    and the broker may lose what it has."""

    @initialize(checkpoints=st.booleans())
    def begin(self, checkpoints: bool) -> None:
        self.log, self.truth = Log(), Truth()
        self.epochs = self.runs = 0
        self.may_lose = False
        self.agents = [self.agent("a"), self.agent("b"), self.agent("a")]
        self.publishers = [self.publisher(index) for index in range(3)]
        self.consumer = Consumer(self.log, checkpoints=checkpoints)
        self.saved = self.consumer.copy()

    def agent(self, host: str) -> Agent:
        self.epochs += 1
        agent = Agent(host, f"e{self.epochs}", history_records=12)
        self.poll_one(agent, ())
        return agent

    def poll_one(self, agent: Agent, found: tuple[Holding, ...]) -> None:
        agent.poll(*found)
        self.truth.note(agent)

    def publisher(self, index: int) -> Publisher:
        self.runs += 1
        publisher = Publisher(self.log, self.runs)
        publisher.connect(self.agents[index])
        return publisher

    which = st.sampled_from([0, 0, 0, 1, 1, 2])

    @rule(index=which, state=states)
    def poll(self, index: int, state: set[int]) -> None:
        self.poll_one(self.agents[index], tuple(HOLDINGS[one] for one in sorted(state)))

    @rule(index=which, count=few)
    def publish(self, index: int, count: int) -> None:
        self.publishers[index].publish(count)

    @rule(index=which)
    def publish_all(self, index: int) -> None:
        self.publishers[index].publish()

    @rule(index=which)
    def checkpoint(self, index: int) -> None:
        self.publishers[index].checkpoint()

    @rule(index=which)
    def restart_publisher(self, index: int) -> None:
        self.publishers[index] = self.publisher(index)

    @rule(index=which)
    def restart_agent(self, index: int) -> None:
        self.agents[index] = self.agent(self.agents[index].info.host)
        self.publishers[index].connect(self.agents[index])

    @rule(count=few)
    def read(self, count: int) -> None:
        self.consumer.read(count)

    @rule()
    def read_all(self) -> None:
        self.consumer.read()

    @rule(count=few)
    def read_twice(self, count: int) -> None:
        self.consumer.sequence = max(0, self.consumer.sequence - count)

    @rule(count=few)
    def miss(self, count: int) -> None:
        self.consumer.sequence = min(self.consumer.sequence + count, self.log.end)

    @rule()
    def save(self) -> None:
        self.saved = self.consumer.copy()

    @rule()
    def kill_consumer(self) -> None:
        self.consumer = self.saved.copy()

    @rule(count=few)
    def lose_end(self, count: int) -> None:
        """Lose what is newest: the broker was restarted, and all connect again."""
        self.log.lose_end(max(0, self.log.end - count))
        self.consumer.read(0)
        for index, publisher in enumerate(self.publishers):
            publisher.connect(self.agents[index])

    @rule(back=few)
    def make_hole(self, back: int) -> None:
        self.log.delete(self.log.end - back)

    @invariant()
    def what_is_passed_on_fits(self) -> None:
        check(self.consumer.output, self.truth)

    def teardown(self) -> None:
        """After a new snapshot of each host, all that is read is known."""
        if not hasattr(self, "log"):
            return
        # Twice: a log that has lost its end may have grown again to where the consumer is.
        for index in (0, 1, 0, 1):
            self.consumer.read()
            self.publishers[index] = self.publisher(index)
            self.publishers[index].publish()
            self.publishers[index].checkpoint()
            self.publishers[index].publish()
        self.consumer.read()
        hosts = check(self.consumer.output, self.truth)
        for index, host in enumerate("ab"):
            assert hosts[host].is_known
            feed = self.agents[index].feed
            assert (hosts[host].epoch, hosts[host].seq) == (feed.epoch, feed.seq)


Fleet.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestFleet = Fleet.TestCase
