"""The page in a real browser: Playwright with the system's chromium, skipped where either is absent."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from stored_results import store_study

from experiments.report import write_report
from experiments.study import StudyOptions, resolve_preset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
"""axe-core 4.14.1 as it was published, Mozilla Public License 2.0 (the licence lies beside it)."""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SERIOUS = ("serious", "critical")

MILLISECONDS = 180_000
"""To wait for a page on a busy machine."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install -y chromium)"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a study of which everything is measured."""
    folder = tmp_path_factory.mktemp("report")
    settings = {"diffusion.timesteps": "20", "evaluation.n_progressive": "2"}
    options = StudyOptions(folder / "reports")
    study = resolve_preset("digits", settings, runs=folder / "runs", options=options)
    store_study(study)
    return write_report(study)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install playwright)")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def visit(browser, report):
    """Open the page; at the end there must have been no complaint and no request for anything but it."""
    contexts, complaints, requests = [], [], []

    def opened(viewport=WIDE, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri(), timeout=MILLISECONDS)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {report.as_uri()}


def test_the_page_is_one_file_below_five_megabytes(report):
    assert report.stat().st_size < 5e6


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_is_wider_than_the_screen_and_axe_finds_nothing_serious(viewport, scheme, visit):
    page = visit(viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [violation for violation in found if violation["impact"] in SERIOUS]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in serious] == []


def test_the_findings_are_on_the_first_screen(visit):
    page = visit()
    boxes = [part.bounding_box() for part in page.locator(".finding").all()]
    assert len(boxes) == 4
    assert max(box["y"] + box["height"] for box in boxes) <= WIDE["height"]


def test_light_and_dark_differ_in_paper_ink_and_figures(visit):
    script = """() => {
        const line = document.querySelector("svg [style*='--colour-']");
        const of = (element, name) => getComputedStyle(element)[name];
        const body = ["backgroundColor", "color"].map((name) => of(document.body, name));
        return [...body, of(line, "stroke"), of(line, "fill")];
    }"""
    light, dark = (visit(color_scheme=scheme).evaluate(script) for scheme in ("light", "dark"))
    assert light[0] == "rgb(255, 255, 255)"
    assert all(a != b for a, b in zip(light[:2], dark[:2], strict=True))
    assert light[2:] != dark[2:]


def test_the_slider_moves_picture_numbers_and_mark_together(visit):
    page = visit()
    block = page.locator(".slider").first
    data = json.loads(block.locator("script.positions").text_content())
    slider = block.locator("input")
    seen = []
    for position in (0, 1, len(data["steps"]) - 1):
        slider.fill(str(position))
        assert block.locator("img").get_attribute("src") == data["pictures"][position]
        step = f"{data['steps'][position]} of {data['steps'][-1]}"
        assert block.locator("output").text_content() == step
        assert slider.get_attribute("aria-valuetext") == f"{step} reverse steps"
        shown = block.locator(".measures dd").all_text_contents()
        for text, measure in zip(shown, data["measures"], strict=True):
            assert float(text.split()[0]) == pytest.approx(measure["value"][position], rel=1e-3)
        mark = block.locator(".key .where").text_content()
        assert float(mark.split()[-1]) == pytest.approx(data["marks"][position], rel=1e-3)
        seen.append((*shown, mark))
    assert len(set(seen)) == len(seen)


def test_a_chosen_run_shows_its_picture_and_numbers(visit):
    block = visit().locator(".choice")
    data = json.loads(block.locator("script.options").text_content())
    assert len(data["options"]) == 6
    for k in (3, 0):
        block.locator("select").select_option(data["options"][k]["label"])
        assert block.locator("img").get_attribute("src") == data["options"][k]["picture"]
        assert block.locator(".measures dd").all_text_contents() == [
            text for _, text in data["options"][k]["numbers"]
        ]


def test_the_slider_obeys_the_keyboard(visit):
    page = visit()
    block = page.locator(".slider").first
    block.locator("input").focus()
    before = block.locator("output").text_content()
    page.keyboard.press("ArrowLeft")
    assert block.locator("output").text_content() != before


def test_a_curve_tells_its_values_with_their_intervals(visit):
    page = visit()
    chart = page.locator('.chart[data-name="rate-over-steps"]')
    curve = json.loads(chart.locator("script").text_content())
    chart.locator(".plot").focus()
    page.keyboard.press("End")
    line = curve["lines"][0]
    text = next(
        text for text in chart.locator(".key li").all_text_contents() if text.startswith(line["name"])
    )
    value, low, high = (float(part.strip("[],")) for part in text.split(": ")[1].split())
    assert [value, low, high] == pytest.approx([line[name][-1] for name in ("y", "low", "high")], rel=1e-3)
    assert low <= value <= high
    chart.locator(".u-over").hover(position={"x": 5, "y": 50})
    assert text not in chart.locator(".key li").all_text_contents()


def test_tables_hold_the_numbers_of_their_csv(visit, report):
    page = visit()
    checked = 0
    for figure in page.locator("figure.tabled").all():
        path = report.parent / figure.locator("a").first.get_attribute("href")
        with path.open() as file:
            rows = list(csv.DictReader(file))
        names = figure.locator("thead th").evaluate_all("cells => cells.map((cell) => cell.dataset.column)")
        cells = figure.locator("tbody tr").evaluate_all(
            "rows => rows.map((row) => [...row.cells].map((cell) => cell.dataset.value))"
        )
        if len(cells) != len(rows):
            continue  # laid out as a matrix
        for row, shown in zip(rows, cells, strict=True):
            for name, value in zip(names, shown, strict=True):
                if name in row and name != "run" and not value.count("["):  # runs are in words on the page
                    assert _same(value, row[name]), (path.name, name)
                    checked += 1
    assert checked > 100


def _same(shown, stored):
    """Tell whether two cells hold the same number or text."""
    if shown == "--":
        return stored == ""
    try:
        return float(shown) == float(stored)
    except ValueError:
        return shown == stored


def test_a_table_is_sorted_by_the_heading_that_is_pressed(visit):
    page = visit()
    table = page.locator("#table-table4 table")
    cells = table.locator("tbody tr > :nth-child(1)")
    heading = table.locator("thead th").first
    heading.locator("button").click()
    ascending = [float(text) for text in cells.all_text_contents()]
    assert (ascending, heading.get_attribute("aria-sort")) == (sorted(ascending), "ascending")
    heading.locator("button").click()
    assert [float(text) for text in cells.all_text_contents()] == ascending[::-1]


def test_without_scripts_the_still_figures_and_tables_remain(visit):
    page = visit(java_script_enabled=False)
    figures = page.locator("figure .still").all()
    assert figures and all(figure.is_visible() for figure in figures)
    assert not page.locator(".chart:visible, .slider:visible, .choice:visible").count()
    assert page.locator("figure.tabled table").first.is_visible()


def test_on_paper_figures_are_still_and_there_are_no_buttons(visit):
    page = visit()
    page.emulate_media(media="print")
    assert all(figure.is_visible() for figure in page.locator("figure .still").all())
    assert not page.locator(".charts:visible, .slider:visible, .contents:visible").count()


def test_every_entry_of_the_contents_leads_to_its_part(visit):
    page = visit()
    for link in page.locator(".contents a").all():
        link.click()
        assert page.url.endswith(link.get_attribute("href"))
        target = page.locator(link.get_attribute("href"))
        assert target.count() == 1
    assert page.locator(".contents").bounding_box()["y"] == pytest.approx(0, abs=1)  # it stays
