"""The state of one process."""

from agent.model import ThreadFds, held_by
from agent.snapshot.process_state import ProcessState

from ..make import process


def state_of(fds: dict[int, int], thread_fds: ThreadFds = ()) -> ProcessState:
    """Return the state of a process with these descriptors."""
    state = ProcessState(process(), poll=1, new_until=0)
    state.replace_fds(fds, thread_fds)
    return state


def test_the_descriptors_on_a_socket_are_in_ascending_order() -> None:
    assert held_by({3: 11, 4: 0, 5: 11, 6: 12}, ((4, 11), (3, 11), (9, 13))) == {
        11: (3, 4, 5), 12: (6,), 13: (9,)
    }  # fmt: skip


def test_replace_fds_returns_what_was_held_before() -> None:
    state = state_of({3: 11})
    assert state.replace_fds({4: 12, 5: 0}, ()) == {11: (3,)}
    assert (state.fds, state.held) == ({4: 12, 5: 0}, {12: (4,)})


def test_update_fds_returns_the_changed_sockets_before_and_after() -> None:
    state = state_of({3: 11, 4: 11, 5: 12, 6: 13})
    assert state.update_fds({4: 12, 6: None}) == (
        {11: (3, 4), 12: (5,), 13: (6,)},
        {11: (3,), 12: (4, 5)},
    )
    assert state.held == {11: (3,), 12: (4, 5)}


def test_a_change_leaves_the_descriptor_of_a_thread_with_the_same_number() -> None:
    state = state_of({3: 11}, ((3, 11),))
    state.update_fds({3: None})
    assert state.held == {11: (3,)}


def test_a_number_that_a_thread_uses_too_is_listed_once() -> None:
    state = state_of({}, ((3, 11),))
    state.update_fds({3: 11})
    assert state.held == {11: (3,)}


def test_many_descriptors_on_one_socket_stay_in_order() -> None:
    state = state_of(dict.fromkeys(range(3, 300), 11))
    assert state.held == {11: tuple(range(3, 300))}
    state.update_fds({5: None, 300: 11, 6: 12})
    assert state.held == {11: (3, 4, *range(7, 301)), 12: (6,)}


def test_remove_socket_returns_and_removes_its_descriptors() -> None:
    state = state_of({3: 11, 4: 11, 5: 12})
    assert state.remove_socket(11) == {11: (3, 4)}
    assert (state.fds, state.held) == ({5: 12}, {12: (5,)})
    assert state.remove_socket(11) == {}


def test_set_facts_keeps_the_facts_that_are_none() -> None:
    state = state_of({})
    assert not state.set_facts(process(), 5, None)
    assert state.set_facts(process(comm="other"), None, None)
    assert (state.process.comm, state.netns) == ("other", 5)


def test_a_change_resets_the_count_of_searches() -> None:
    state = state_of({})
    state.add_search()
    state.set_changed(4)
    assert (state.searches, state.changed_in) == (0, 4)
