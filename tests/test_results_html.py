"""The pages for people: whole HTML, nothing from files taken for markup, pictures that are there, misses that show."""

from __future__ import annotations

import html.parser
import math
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from experiments import results_html, results_page, results_text
from experiments.comparison import Comparison
from experiments.groups import groups_of, read_run
from experiments.results import collect
from experiments.results_chart import chart
from genjax.io.files import write_json
from tests.fake_runs import work_folder

ROOT = Path(__file__).resolve().parent.parent
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced; collects what the page refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.targets: list[str] = []
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.names.append(value)
            if name in ("src", "href"):
                (self.sources if name == "src" else self.targets).append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"


def broken(text: str, folder: Path) -> list[str]:
    """What is wrong with an HTML page whose pictures lie in ``folder``."""
    try:
        page = Page(text)
    except AssertionError as error:
        return [str(error)]
    found = [f"tag {tag}" for tag in page.tags & {"script", "iframe", "object", "link"}]
    found += [f"attribute {name}" for name in page.attributes if name.startswith("on")]
    found += [f"picture {source}" for source in page.sources if not (folder / unquote(source)).is_file()]
    found += [f"link {target}" for target in page.targets if unquote(target).lstrip("#") not in page.names]
    found += ["a name twice"] if len(set(page.names)) < len(page.names) else []
    return found + (["a host"] if re.search(r"(src|href|url\()[^>]*//", text) else [])


@pytest.fixture
def collected(tmp_path):
    """Groups of two seeds of a run with a name and numbers that look like markup."""
    for seed in range(2):
        folder = work_folder(
            tmp_path / f"run&{seed}<b>",
            {"accuracy": 0.9, f"share/{EVIL}": 0.5, "nll": 1.0 + 0.1 * seed},
            seed=seed,
            config={"data": {"source": EVIL, "options": {}}},
            argv=("--config=configs/my_family/my_model.py", f"--config.model.family={EVIL}"),
            evaluation={"settings": {"a": EVIL}},
        )
        collect(folder, tmp_path / "out" / folder.name)
        reference = {"metric": "eval/nll", "value": 0.5, "tolerance": 0.0, "source": f"{EVIL} | table 1"}
        write_json(tmp_path / "out" / folder.name / "references.json", [reference])
    return groups_of(read_run(path) for path in sorted((tmp_path / "out").iterdir()))


def test_nothing_from_files_is_markup(collected, tmp_path):
    verdict = [(Comparison(EVIL, "b", "eval/nll"), f"{EVIL} better")]
    page = results_html.page(collected, verdict, tmp_path / "out")
    assert not broken(page, tmp_path / "out")
    assert EVIL not in page and page.count("&lt;script&gt;") > 5
    markdown = re.sub(r"^    .*$", "", results_page.page(collected, verdict, tmp_path), flags=re.MULTILINE)
    assert EVIL not in markdown
    rows = [line for line in markdown.splitlines() if "table 1" in line]
    assert rows and all("\\| table 1" in row for row in rows)


@pytest.mark.parametrize(
    "damage",
    [
        ("&lt;script&gt;", "<script>"),
        ("</table>", ""),
        ("samples.png", "none.png"),
        ('<h2 id="', '<h2 id="x'),
        ('src="', 'src="https://example.com/'),
        ("<img ", '<img onload="x" '),
    ],
)
def test_the_check_of_the_page_finds_what_is_broken(collected, tmp_path, damage):
    page = results_html.page(collected, [], tmp_path / "out")
    assert damage[0] in page
    assert broken(page.replace(*damage), tmp_path / "out")


def test_the_page_of_the_repository_is_whole():
    folder = ROOT / "docs/results"
    assert not broken((folder / "index.html").read_text(), folder)


def test_a_miss_is_marked_wherever_the_figure_stands(collected, tmp_path):
    (group,) = collected
    (missed,) = group.missed
    assert results_text.mark(missed) == "MISSED by 0.55" and results_text.difference(missed) == "+0.55"
    page = results_html.page(collected, [], tmp_path)
    assert page.count('<span class="missed">MISSED by 0.55</span>') == 2  # among the published ones, and in its group
    assert '<span class="missed">1 MISSED</span>' in page
    markdown = results_page.page(collected, [], tmp_path)
    assert markdown.count("**MISSED by 0.55**") == 2 and "**1 MISSED**" in markdown


def test_pictures_and_curves_of_all_seeds_are_side_by_side(collected, tmp_path):
    page = results_html.page(collected, [], tmp_path / "out")
    (row,) = re.findall(r'<h3>samples</h3>\n<div class="row">(.*)</div>', page)
    assert row.count("<img ") == 2
    (drawing,) = re.findall(r"<svg.*?</svg>", page)
    assert drawing.count("<polyline") == 2 and "seeds 0, 1" in drawing
    assert results_page.page(collected, [], tmp_path).count("![samples of ") == 2


@pytest.mark.parametrize(
    "metric, value, half_width, text",
    [
        ("accuracy", 0.92231, 0.0052, "92.23%"),
        ("accuracy", 0.92231, None, "92.2%"),
        ("elbo", -92.0267, 0.44, "-92.03"),
        ("elbo", -241.21, 14.8, "-241"),
        ("nll", 0.21961, None, "0.2196"),
        ("nll", 0.21961, 0.0, "0.2196"),
        ("kernel_distance", 0.0152326, 0.00247, "0.0152"),
        ("nll", math.nan, 0.1, "nan"),
        ("share/Bag", 0.108, None, "10.8%"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_allows(metric, value, half_width, text):
    assert results_text.number(metric, value, half_width) == text


def test_a_chart_holds_its_points():
    drawing = chart("a", [(0, [[1, 2.0], [3, 4.0]]), (1, [[1, 3.0], [3, math.nan]])])
    assert 'points="52.0,166.0 310.0,24.0"' in drawing and 'points="52.0,95.0"' in drawing
    assert chart("a", [(0, [[1, math.nan]])]) == ""
    flat = chart("a", [(0, [[1, 2.0], [1, 2.0]])])
    assert "nan" not in flat and "inf" not in flat
