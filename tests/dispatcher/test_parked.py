"""What is parked, and where a stream's other entries begin."""

from dispatcher.parked import PAGE, Parked

RESULTS = "results"


def ids(first: int, last: int) -> list[str]:
    return [f"{n}-0" for n in range(first, last + 1)]


def look(parked: Parked, stream: list[str]) -> str | None:
    """Do what the engine does: read one page from where it begins."""
    start = parked.start(RESULTS)
    after = 0 if start == "-" else int(start.removeprefix("(").split("-")[0])
    return parked.first_other(RESULTS, [entry for entry in stream if int(entry.split("-")[0]) > after][:PAGE])


def test_the_oldest_that_is_not_parked_is_found_between_those_that_are() -> None:
    parked = Parked()
    parked.add(RESULTS, ["1-0", "3-0"])
    assert look(parked, ["1-0", "2-0", "3-0", "4-0"]) == "2-0"
    assert look(parked, ["1-0", "3-0", "4-0"]) == "4-0"
    assert look(parked, ["1-0", "3-0"]) is None


def test_however_many_are_parked_a_page_is_looked_at() -> None:
    parked = Parked()
    stream = ids(1, 3 * PAGE + 5)
    parked.add(RESULTS, stream)
    seen = [look(parked, stream) for _ in range(5)]
    assert seen == [f"{PAGE}-0", f"{2 * PAGE}-0", f"{3 * PAGE}-0", None, None], "none is told of that waits behind"
    assert look(parked, [*stream, "999-0"]) == "999-0"
    assert parked.count(RESULTS) == 3 * PAGE + 5


def test_what_is_parked_in_one_stream_is_not_in_another() -> None:
    parked = Parked()
    parked.add("registrations", ["1-0"])
    assert look(parked, ["1-0"]) == "1-0"
    assert parked.count(RESULTS) == 0
