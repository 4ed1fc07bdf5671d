from collections.abc import Hashable

from agent.kernel.procfs.progress import Progress


def test_each_notes_the_item_being_read() -> None:
    progress = Progress()
    assert progress.place is None
    assert [progress.place for _item in progress.each([7, 8])] == [7, 8]


def test_each_notes_the_place_of_an_item() -> None:
    progress = Progress()

    def place_of(item: int) -> Hashable:
        return ("counters", item)

    places = [progress.place for _item in progress.each([7, 8], place_of)]
    assert places == [("counters", 7), ("counters", 8)]


def test_stop_ends_a_batch_before_its_next_item() -> None:
    progress = Progress()
    read = []
    for item in progress.each([7, 8, 9]):
        read.append(item)
        if item == 8:
            progress.stop()
    assert read == [7, 8]
    assert progress.place == 8
