"""The README and the docs do what they say: every block of code in them is run, against a real server.

`Reader` tells how each kind of block is run. A block that is not run says why in an HTML comment before it.
"""

import re
from pathlib import Path

import pytest

from tests.docs.newcomer import Newcomer
from tests.docs.pages import ROOT, blocks, matches, pages
from tests.docs.reading import Reader
from tests.support.workers import USUAL_PORTS


async def read(newcomer: Newcomer, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_REDIS_URL", newcomer.url)
    async with Reader(newcomer) as reader:
        for block in blocks(page):
            await reader.follow(block)


@USUAL_PORTS
@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
async def test_every_block_of_a_page_does_what_the_page_says(
    page: Path, newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await read(newcomer, page, monkeypatch)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```console\n$ callboard sumbit\n```", r"page.md:2: `callboard sumbit` ends with 2"),
        ("```console\n$ callboard version\nCallboard 0.0\n```", r"page.md:2: .*prints:\ncallboard \d"),
        ("```console\n$ callboard version\ncallboard: no\n```", r"page.md:2: `callboard version` ends with 0"),
        ("```console\n$ callboard agent nowhere.py\n```", r"page.md:2: .*ends with 1 .*\n.*no file nowhere.py"),
        ("```console\n$ make tea\n```", r"page.md:2: `make tea` ends with 2"),
        ("```sh\ntrue\nfalse\n```", r"page.md:2: `false` ends with 1"),
        ("```python\nfrom bus import Cleint\n```", "Cleint"),
        ("```python\nprint(1 + 1)  # 3\n```", r"page.md:2 prints:\n2"),
        ("```python\nasync def test_it() -> None:\n    raise OSError('red')\n```", "red"),
        ("<!-- file: examples/agent.py -->\n```python\nslots = 8\n```", "page.md:3 is not examples/agent.py"),
        ("<!-- not run: -->\n```sh\nfalse\n```", "page.md:3: say why"),
        ('```json Heartbeat\n{"agent_id": "a", "session": "s", "hold": []}\n```', "page.md:2: of this only"),
        ("```bash\ntrue\n```", "nobody knows how to run bash"),
    ],
)
async def test_a_page_that_is_wrong_turns_the_test_red(
    text: str, complaint: str, newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n")
    with pytest.raises((AssertionError, ImportError, OSError)) as caught:
        await read(newcomer, page, monkeypatch)
    assert re.search(complaint, str(caught.value), re.DOTALL)


def test_an_ellipsis_stands_for_anything() -> None:
    assert matches(["a  b", "…", "id …"], "a b\nx\ny\nid 17\n")
    assert not matches(["a", "b"], "a\nx\nb\n")
    assert matches(["a", "b"], "0\na\nx\nb\n1\n", among_others=True)


def test_every_link_leads_to_a_file_or_a_heading() -> None:
    for page in [*pages(), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in target:
                path, _, heading = target.partition("#")
                there = (page.parent / path).resolve() if path else page
                assert there.exists(), f"{page.name}: {target}"
                assert not heading or heading in _anchors(there), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index
