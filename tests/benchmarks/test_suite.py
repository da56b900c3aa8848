"""The suite's table and picture."""

from xml.dom.minidom import parseString

from benchmarks import picture, suite


def test_a_figure_stands_beside_its_target_and_how_far_it_is_reached() -> None:
    table = suite.table({"latency": {"result": {"p50": 2.6, "p99": 1.5}}, "throughput": {"drain_per_s": 5000}})
    assert "| latency | result.p50 | 2.6 | 1.3 ms | 0.50 |" in table
    assert "| latency | result.p99 | 1.5 | 3 ms | 2.00 |" in table
    assert "| throughput | drain_per_s | 5000 | 20000 /s | 0.25 |" in table


def test_a_part_that_is_not_there_or_fails_says_so_and_stops_nothing() -> None:
    assert "skipped" in suite.run(suite.Part("none", "no_such_program"), quick=True)
    assert (
        "invalid positive value"
        in suite.run(suite.Part("wrong", "throughput", ("--tasks", "x")), quick=False)["failed"]
    )


def test_the_picture_has_a_bar_for_each_target_and_is_well_formed() -> None:
    drawn = picture.bars("<title>", [picture.Bar("a & b", 0.5, "2 ms"), picture.Bar("c", 20.0, "1 ms")])
    svg = parseString(drawn)  # noqa: S318 - we have drawn it
    bars = [rect for rect in svg.getElementsByTagName("rect") if rect.hasAttribute("y")]
    short, long = (float(bar.getAttribute("width")) for bar in bars)
    assert short * 4 == long  # a bar ends at twice its target
