"""A loop that does not come back from what it has taken is told from one that waits."""

from bus.records import LoopBeat
from dispatcher.pulse import Pulse


def test_the_age_of_a_busy_loop_grows_and_that_of_a_waiting_one_does_not() -> None:
    pulse = Pulse()
    pulse.beat("commit")
    pulse.beat("decide")
    pulse.idle("decide")
    pulse._seen["commit"] = (pulse._seen["commit"] or 0) - 7_000
    told = {name: LoopBeat.model_validate_json(beat) for name, beat in pulse.told(17).items()}
    assert (told["decide"].at, told["decide"].age) == (17, 0)
    assert told["commit"].age >= 7
