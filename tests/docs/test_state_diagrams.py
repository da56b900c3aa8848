"""The page on states is what the tables say."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_on_states_is_drawn_from_the_tables() -> None:
    spec = spec_from_file_location("state_diagrams", DOCS / "state_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "states.md").read_text() == module.page(), "run: python docs/state_diagrams.py > docs/states.md"
