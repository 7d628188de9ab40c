"""The explorer, its lesions and the page that is asked, worked by a real browser, from files and on made-up data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_explorer import ARMS, FIXED, answers, explored, lesion_scores, means
from pipelines import ROOT

from mmlib.figures.components import component
from mmlib.figures.explorer import explorer, pack
from mmlib.figures.style import Shown
from mmlib.studies import lesions
from mmlib.studies.asking import TOPICS, packed

COMPONENTS = ROOT / "book" / "_components"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PAGE = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><body>'
NAMELESS = "[...document.querySelectorAll('input, select')].filter(one => !one.labels[0]?.textContent.trim()).length"
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def text(name: str) -> str:
    return (COMPONENTS / name).read_text()


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    made = [explored(), explored("made-2", "typical", "the second one", finer=True)]
    return pack(made, means(), 40, 0.56, fillers={"regression unet": "regression"}, fixed=FIXED)


@pytest.fixture(scope="module")
def explorer_page(cases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    shown = explorer(cases, COMPONENTS, "made up")
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    path.write_text(PAGE + shown.html)
    return f"file://{path}"


def opened(browser: Any, address: str, **size: int) -> Any:
    """A tab whose `problems` are what it asked for outside its file, and what its scripts complained of."""
    tab = browser.new_page()
    tab.problems = []
    tab.set_default_timeout(8000)
    tab.set_viewport_size(size or DESK)
    tab.on("request", lambda asked: re.match("file:|data:|blob:", asked.url) or tab.problems.append(asked.url))
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.on("console", lambda said: said.type == "error" and tab.problems.append(said.text))
    tab.goto(address)
    return tab


def switch(tab: Any, name: str) -> None:
    """Switch an image on or off."""
    tab.locator(f".explorer .tile input[value={name}]").click()


def dice_shown(tab: Any, method: str, region: str = "et") -> int:
    return int(tab.locator(f"tr[data-method='{method}'] td[data-region={region}] strong").inner_text())


def picture(tab: Any, place: int) -> str:
    """The pixels of a picture: those of images first, then the truth and the networks."""
    return tab.locator(".explorer[aria-busy=false] canvas").nth(place).evaluate("canvas => canvas.toDataURL()")


def test_without_t1ce_the_dice_falls_as_the_predictions_say(
    browser: Any, explorer_page: str, cases: dict[str, Any]
) -> None:
    tab = opened(browser, explorer_page)
    for arm in ARMS:
        assert dice_shown(tab, arm) == 100
    before = picture(tab, 5)
    assert not tab.locator("tr.known").count(), "with t1ce nothing is hidden"
    switch(tab, "t1ce")
    for arm in ARMS:
        by = cases["cases"][0]["dice"][arm]
        assert dice_shown(tab, arm) == round(100 * by["t1+t2+flair"][2]) < 100
        assert dice_shown(tab, arm, "wt") == 100
    assert picture(tab, 5) != before, "what the network finds is drawn anew"
    assert tab.locator("tr.known td[data-region=et] strong").inner_text() == "60"
    assert "from t1, t2, flair: ShaSpec (paper) 67 % (with all images 100 %)" in tab.inner_text(".explorer .said")
    assert tab.locator(".explorer .tile.missing .gone").inner_text() == "t1ce missing"
    assert tab.problems == []
    tab.close()


COLOURED = """canvas => {
  const rgba = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const grey = i => rgba[4 * i] === rgba[4 * i + 1] && rgba[4 * i] === rgba[4 * i + 2];
  return Array.from({ length: rgba.length / 4 }, (_, i) => !grey(i));
}"""


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_marks_in_larger_voxels_lie_where_the_truth_lies(browser: Any, explorer_page: str, plane: str) -> None:
    tab = opened(browser, explorer_page)
    tab.get_by_text("typical").click()
    tab.get_by_text(plane).click()
    drawn = tab.locator(".explorer[aria-busy=false] .outputs canvas")
    truth, found = (np.array(drawn.nth(place).evaluate(COLOURED)) for place in range(2))
    assert truth.any() and (truth & found).sum() > 0.9 * (truth | found).sum(), "the network found all"
    tab.close()


def test_one_image_always_stays(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, explorer_page)
    for name in ("t1", "t1ce", "t2", "flair"):
        switch(tab, name)
    assert tab.locator(".explorer .tile.missing").count() == 3
    assert tab.is_checked(".explorer input[value=flair]")
    tab.close()


def test_the_slider_moves_every_picture_and_the_planes_have_their_own_slice(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, explorer_page)
    slider = tab.locator(".explorer .bars input[type=range]").first
    before = [picture(tab, place) for place in range(7)]
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert all(picture(tab, place) != was for place, was in enumerate(before))
    assert tab.inner_text(".explorer .bars output").endswith(" of 8")
    tab.get_by_text("sagittal").click()
    assert tab.inner_text(".explorer .bars output").endswith(" of 12")
    tab.close()


def test_a_link_opens_in_the_same_state(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, explorer_page)
    tab.get_by_text("typical").click()
    switch(tab, "t1ce")
    switch(tab, "t2")
    tab.get_by_text("coronal").click()
    tab.locator(".explorer .bars input[type=range]").first.fill("2")
    tab.locator(".explorer fieldset").filter(has_text="Networks").get_by_text("U-Net with dropout").click()
    link = tab.evaluate("location.href")
    assert "case=made-2&have=t1+flair&plane=coronal&slice=3&networks=shaspec_paper" in link
    other = opened(browser, link)
    for read in ("innerText", "querySelectorAll('.tile.missing').length", "querySelector('.bars output').value"):
        look = f"document.querySelector('.explorer').{read}"
        assert other.evaluate(look) == tab.evaluate(look)
    assert [picture(other, place) for place in range(6)] == [picture(tab, place) for place in range(6)]
    assert not other.locator("tr[data-method=dropout-unet]").count() and other.problems == []
    tab.close()
    other.close()


def test_what_is_missing_is_shown_as_acquired_and_as_made_up(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, explorer_page)
    made = tab.locator(".explorer .filled")
    assert not made.is_visible(), "nothing is missing"
    switch(tab, "t1ce")
    switch(tab, "t2")
    assert made.locator(".top").all_inner_texts() == [
        "t1ce, acquired (not given)",
        "t1ce by regression: 12.3 dB",
        "t2, acquired (not given)",
        "t2 by regression: 12.3 dB",
    ]
    assert made.locator("h3").inner_text().endswith("axial slice 4"), "counted as the slider counts"
    tab.close()


def test_a_link_puts_the_teacher_and_its_student_beside_the_truth(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, explorer_page)
    shown = tab.locator(".explorer .outputs .tile:visible .top")
    assert shown.all_inner_texts() == ["truth", "ShaSpec (paper)", "U-Net with dropout"], "at first without them"
    tab.get_by_text("typical").click()
    tab.evaluate("location.hash = '#have=t1+t1ce+t2+flair&networks=teacher+protokd'")
    assert shown.all_inner_texts()[:3] == ["truth", "teacher", "student"]
    assert "made-2" in tab.inner_text(".explorer .about"), "the case stays"
    assert [dice_shown(tab, arm) for arm in FIXED] == [100, 0]
    assert tab.locator("tr.known").count() == 1, "the student knows no more than images without t1ce hold"
    student = picture(tab, 8)
    switch(tab, "flair")
    assert dice_shown(tab, "protokd") == 0 and tab.inner_text("tr[data-method=teacher] td") == "needs all images"
    gone = tab.locator(".explorer .outputs .missing:visible .gone")
    assert gone.all_inner_texts() == ["needs all images"] and "teacher, needs all images" in tab.inner_text(".said")
    assert picture(tab, 8) == student, "it reads t1 alone, and lies on it"
    switch(tab, "t1")
    assert gone.all_inner_texts() == ["needs all images", "needs t1"] and tab.problems == []
    tab.close()


# ---------------------------------------------------------------------------------------------------- a reader's cases
# How an output comes into a page: its text becomes elements, whose scripts do not run; then JupyterLab puts a copy in
# the place of each script, and VS Code appends one to the output and takes it away again.
WAYS = {
    "saved page": "",
    "JupyterLab": "script => script.parentNode.replaceChild(copy(script), script)",
    "VS Code": "script => output.appendChild(copy(script)).remove()",
}


@pytest.fixture(scope="module")
def own_cases() -> Shown:
    """A whole case, and one of two images without a truth, of which a network was asked for one combination alone."""
    whole = explored()
    first = replace(whole, predicted={arm: whole.predicted[arm] for arm in ARMS}, filled=None, known=None)
    found = whole.predicted["dropout-unet"]
    some = {"dropout-unet": {have: found[have] for have in ("t1ce", "flair", "t1ce+flair")}}
    some["shaspec paper"] = {"t1ce+flair": found["t1+t1ce+t2+flair"]}
    lacking = {name: whole.case.images[name] for name in ("t1ce", "flair")}
    two = replace(whole.case, name="<b>two</b>", images=lacking, labels=None)
    second = replace(first, case=two, why=two.name, predicted=some, dice={})
    return explorer(pack([first, second], {}, 0, own=True), COMPONENTS, "made up")


@pytest.fixture(scope="module", params=WAYS)
def own_page(own_cases: Shown, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two outputs of the same cells, as in a notebook that is open twice, each in the way of a reader's program."""
    path, way = tmp_path_factory.mktemp("own") / "page.html", WAYS[request.param]
    html = own_cases._repr_mimebundle_()["text/html"]
    late = f"""<div></div><div></div><script>
      const copy = old => Object.assign(document.createElement("script"), {{ type: old.type, text: old.text }});
      for (const output of document.querySelectorAll("div")) {{
        output.innerHTML = {json.dumps(html).replace("<", chr(92) + "u003c")};
        [...output.querySelectorAll("script")].forEach({way});
      }}</script>"""
    path.write_text(PAGE + (late if way else 2 * f"<div>{html}</div>"))
    return f"file://{path}"


def test_a_case_of_one_s_own_is_worked_in_every_program(browser: Any, own_page: str) -> None:
    tab = opened(browser, own_page)
    first, second = tab.locator("figure.explorer").all()
    untouched = second.inner_text()

    def drawn(place: int) -> str:
        return first.locator("canvas").nth(place).evaluate("canvas => canvas.toDataURL()")

    before = drawn(5)
    first.locator("input[value=t1ce]").click()
    assert first.locator(".missing .gone").inner_text() == "t1ce missing" and drawn(5) != before
    assert int(first.locator("tr[data-method='shaspec paper'] td[data-region=et] strong").inner_text()) < 100
    before = [drawn(place) for place in range(7)]
    slider = first.locator("input[type=range]").first
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert all(drawn(place) != was for place, was in enumerate(before) if place != 1)
    plain = drawn(5)
    first.locator("input[type=range]").last.fill("90")
    assert drawn(5) != plain, "the overlay is stronger"
    first.locator(".choice input").first.focus()
    tab.keyboard.press("ArrowRight")
    assert first.locator(".about").inner_text().startswith("<b>two</b>: "), "a name is text"
    gone = first.locator(".inputs .missing .gone").all_inner_texts()
    assert gone == ["t1 not acquired", "t1ce missing", "t2 not acquired"]
    assert first.locator("input:disabled").count() == 2
    assert first.locator("legend").all_inner_texts()[2] == "What is found in them, and its volume in ml"
    assert first.locator(".outputs .top:visible").all_inner_texts() == ["ShaSpec (paper)", "U-Net with dropout"]
    assert first.locator(".outputs .missing .gone").inner_text() == "not predicted from these"
    assert "U-Net with dropout 0.0 ml (with all images " in first.locator(".said").inner_text()
    assert second.inner_text() == untouched and second.locator(".choice input").first.is_checked(), "keeps its own view"
    assert not first.locator("input:not([data-lm-suppress-shortcuts])").count(), "JupyterLab leaves them their keys"
    assert tab.problems == [] and not tab.evaluate("location.hash") and not first.locator("button").count()
    tab.set_viewport_size(PHONE)
    assert tab.evaluate(WIDER) <= 0 and tab.evaluate(NAMELESS) == 0
    tab.close()


def test_an_image_that_a_case_lacks_does_not_leave_it_empty(browser: Any, own_page: str) -> None:
    tab = opened(browser, own_page)
    view = tab.locator("figure.explorer").first
    for name in ("t1ce", "flair"):
        view.locator(f"input[value={name}]").click()
    view.get_by_text("<b>two</b>").click()
    assert view.locator(".inputs .missing").count() == 2 and tab.problems == []
    view.locator("input[value=t1ce]").click()
    view.locator("input[value=flair]").click()
    assert view.locator(".inputs .missing").count() == 3, "one image always stays"
    tab.close()


def test_a_link_to_another_part_of_the_page_changes_nothing(browser: Any, explorer_page: str) -> None:
    tab = opened(browser, f"{explorer_page}#what-you-see")
    assert tab.locator(".explorer .tile.missing").count() == 0 and tab.problems == []
    assert tab.evaluate("location.hash") == "#what-you-see"
    tab.close()


@pytest.fixture(scope="module")
def asking_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    import pandas as pd
    from made_explorer import LABELS

    rows = [
        (
            arm,
            have,
            target,
            metric,
            0.9 - 0.3 * ("t1ce" not in have) - 0.1 * place,
            0.5,
            0.95,
            40,
            5,
            (f"segmentation/{arm}",),
        )
        for place, arm in enumerate(ARMS)
        for have in LABELS
        for target in ("wt", "et")
        for metric in ("dice", "hd95")
    ]
    columns = ["arm", "available", "target", "metric", "mean", "low", "high", "n", "seeds", "runs"]
    data = {
        "caveat": "",
        "colours": dict.fromkeys(("t1", "t1ce", "t2", "flair"), "#777777"),
        "tasks": [packed(TOPICS[0], pd.DataFrame(rows, columns=columns))],
    }
    shown = component(COMPONENTS, "asking", data, alt="a", caption="made up")
    path = tmp_path_factory.mktemp("asking") / "page.html"
    path.write_text(PAGE + shown.html)
    return f"file://{path}"


def test_chart_table_and_csv_follow_the_choice(browser: Any, asking_page: str, tmp_path: Path) -> None:
    tab = opened(browser, asking_page)
    points, lanes = tab.locator(".asking g.point"), tab.locator(".asking .numbers tbody tr")
    assert points.count() == 30 and lanes.count() == 15
    tab.locator(".asking .bars label").filter(has_text="t1ce").locator("select").select_option("missing")
    assert points.count() == 14 and lanes.count() == 7
    tab.locator(".asking .bars label").filter(has_text="how many").locator("select").select_option("1")
    tab.locator(".asking .choice").filter(has_text="U-Net with dropout").click()
    assert points.count() == 3 and lanes.count() == 3
    assert lanes.first.inner_text().split("\t") == ["flair", "60.0 (50.0 to 95.0)"]
    points.first.hover()
    said = tab.locator(".asking > output")
    assert "ShaSpec (paper) from flair: 60.0 (50.0 to 95.0), 40 cases, 5 seeds" in said.inner_text()
    assert said.locator("a").get_attribute("href") == "94_provenance.html#runs-segmentation"
    with tab.expect_download() as saved:
        tab.locator(".asking button").click()
    saved.value.save_as(tmp_path / "scores.csv")
    head, *lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert head.startswith("task,network,images,target,metric,mean,low_95,high_95") and len(lines) == 3
    assert (
        lines[0]
        == 'segmentation,ShaSpec (paper),flair,enhancing tumour,"Dice, %",60,50,95,40,5,segmentation/shaspec paper'
    )
    other = opened(browser, tab.evaluate("location.href"))
    assert other.locator(".asking g.point").count() == 3 and other.problems == tab.problems == []
    tab.close()
    other.close()


@pytest.fixture(scope="module")
def lesions_page(cases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Lesions below the explorer, as on the page of the book."""
    made = lesions.pack(answers(), lesion_scores())
    shown = [
        explorer(cases, COMPONENTS, "made up"),
        component(COMPONENTS, "explorer lesions", made, alt="a", caption="made up"),
    ]
    path = tmp_path_factory.mktemp("lesions") / "page.html"
    path.write_text(PAGE + "".join(one.html for one in shown))
    return f"file://{path}"


def test_a_lesion_shows_its_truth_and_what_each_network_says(browser: Any, lesions_page: str) -> None:
    tab = opened(browser, lesions_page)
    view = tab.locator(".lesions")
    about = view.locator(".about").inner_text()
    assert about.startswith("Lesion 200002: diagnosis from the photograph wrong, guided right. 1 of 7 test lesions")
    said = view.locator(".said").inner_text()
    assert re.search("photograph alone says .*, 70 %, wrong; guided photograph says .*, 70 %, right;", said)
    true = view.locator(".answers tr.true td")
    assert true.locator("span:first-child, strong").all_inner_texts() == ["8", "70", "70"], "0.3 / 4 for the others"
    assert view.locator("td[data-mean=both]").inner_text() == "55.0 %"
    view.get_by_text("all right (2)").click()
    for tile in view.locator(".tile").all():
        numbers, shown = tile.locator(".pins b").all_inner_texts(), tile.locator("small").inner_text()
        assert numbers and re.findall(r"\d", shown) == numbers, "what is pointed at has its name below"
    before = view.locator("img").last.get_attribute("src")
    view.locator(".choice input[name^=lesion]").first.focus()
    tab.keyboard.press("ArrowRight")
    assert "guidance harms" in view.locator(".choice input[name^=lesion]:checked + span").inner_text(), "by keyboard"
    assert view.locator("img").last.get_attribute("src") != before
    view.get_by_text("pigment network", exact=True).click()
    assert view.locator(".answers tbody tr").count() == 3 and "Truth, pigment network" in view.inner_text()
    assert tab.problems == []
    tab.close()


def test_a_link_holds_both_views_of_the_page(browser: Any, lesions_page: str) -> None:
    tab = opened(browser, lesions_page)
    view = tab.locator(".lesions")
    view.get_by_text("all wrong (1)").click()
    view.get_by_text("streaks", exact=True).click()
    view.locator(".choice").filter(has_text="guided photograph").click()
    switch(tab, "t1ce")
    view.get_by_text("dermoscopy helps (1)").click()
    link = tab.evaluate("location.href")
    assert "have=t1+t2+flair" in link and link.endswith("lesion=200003&asked=STR&seen=inferior+both")
    other = opened(browser, link)
    assert other.inner_text(".lesions") == tab.inner_text(".lesions") and other.evaluate("scrollY") > 0
    assert other.locator(".explorer .tile.missing .gone").inner_text() == "t1ce missing" and other.problems == []
    tab.close()
    other.close()


@pytest.mark.parametrize("name", ["explorer_page", "asking_page", "lesions_page"])
def test_all_fit_a_phone_and_every_control_has_a_name(browser: Any, name: str, request: pytest.FixtureRequest) -> None:
    tab = opened(browser, request.getfixturevalue(name), **PHONE)
    assert tab.evaluate(WIDER) <= 0
    assert tab.evaluate(NAMELESS) == 0
    tab.close()


def test_the_scripts_are_short_and_know_no_address() -> None:
    for name in ("parts.js", "explorer.js", "asking.js", "lesions.js"):
        assert len(text(name).splitlines()) < 300
        assert set(re.findall(r"https?://[\w./]+", text(name))) <= {"http://www.w3.org/2000/svg"}
    json.dumps(means(), allow_nan=False)
