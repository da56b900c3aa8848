"""The heap and the account of what is held."""

from agent_runtime.inbox import REMEMBERED, Attempt, Inbox


def _attempt(name: str, score: int = 0, number: int = 1) -> Attempt:
    return Attempt(name, number, score, {"capability": "x"})


def test_the_lowest_score_comes_first_and_of_equals_the_earlier() -> None:
    inbox = Inbox()
    for name, score in (("b", 2), ("a", 1), ("b2", 2), ("u", -10)):
        inbox.add(_attempt(name, score))
    taken = [attempt.key[0] for attempt in iter(inbox.take, None)]
    assert taken == ["u", "a", "b", "b2"]
    assert len(inbox) == 0


def test_an_attempt_is_taken_once_however_often_it_is_read() -> None:
    inbox = Inbox()
    assert inbox.add(_attempt("a"))
    assert not inbox.add(_attempt("a"))
    assert inbox.take() is not None
    assert not inbox.add(_attempt("a"))
    inbox.release([("a", 1)])
    assert not inbox.add(_attempt("a"))
    assert inbox.add(_attempt("a", number=2))


def test_a_task_whose_id_comes_again_after_its_record_was_deleted_is_taken() -> None:
    inbox = Inbox()
    inbox.add(_attempt("a"))
    inbox.take()
    inbox.release([("a", 1)])
    again = _attempt("a")
    again.assigned_at = 1
    assert inbox.add(again)


def test_what_is_begun_is_held_until_it_is_released() -> None:
    inbox = Inbox()
    inbox.add(_attempt("a"))
    inbox.take()
    assert inbox.holding() == [("a", 1)]
    inbox.release([("a", 1)])
    assert inbox.holding() == []


def test_what_is_withdrawn_is_neither_taken_nor_held() -> None:
    inbox = Inbox()
    for name in ("a", "b"):
        inbox.add(_attempt(name))
    assert inbox.withdraw(("a", 1))
    assert not inbox.withdraw(("a", 1))
    assert inbox.holding() == [("b", 1)]
    assert len(inbox) == 1
    assert inbox.take_all() == [("b", 1)]


def test_what_has_begun_cannot_be_withdrawn() -> None:
    inbox = Inbox()
    inbox.add(_attempt("a"))
    inbox.take()
    assert not inbox.withdraw(("a", 1))
    assert inbox.holding() == [("a", 1)]


def test_handed_back_attempts_are_held_until_the_report_is_stored() -> None:
    inbox = Inbox()
    inbox.add(_attempt("a"))
    assert inbox.take_all() == [("a", 1)]
    assert inbox.holding() == [("a", 1)]


def test_the_past_is_remembered_within_bounds() -> None:
    inbox = Inbox()
    count = 2 * REMEMBERED
    for n in range(count):
        inbox.add(_attempt(str(n)))
        inbox.release([(str(n), 1)])
    assert not inbox.add(_attempt(str(count - REMEMBERED)))
    assert inbox.add(_attempt("0"))
