"""The review page in a real browser: confirming by hand and by keys, and what is told when that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page, Route, expect

from annotation_store.review import is_confirmed
from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.browser import PANEL, Visit, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

SIZE = (1, 30, 70, 80)
MANY = 60
ROWS = "#annotations tbody tr"


@pytest.fixture
def dataset(served: Served, request: pytest.FixtureRequest) -> Path:
    """A dataset of its own with two leaves."""
    directory = served.root / str(request.node.name)
    write_dataset(directory, volume(SIZE, "uint8"))
    points = [point(number, number + 0.5, 20, 5 + number // 20, anntype="glia") for number in range(MANY)]
    contour = {"id": "soma", "type": "polygon", "points": [[5, 5, 20.5], [9, 5, 20.5], [9, 9, 20.5]], "anntype": "soma"}
    write_annotations(directory, {"centroids": points, "z-0020": [contour]})
    return directory


def stored(dataset: Path, leaf: str = "centroids") -> dict[str, Any]:
    """What a leaf's file holds, by id."""
    items = json.loads((dataset / "annotations" / "x0y0z0" / f"{leaf}.json").read_bytes())
    return {item["id"]: item for item in items}


def opened(seen: Visit, served: Served, path: str) -> Page:
    """The page once it shows annotations."""
    seen.page.goto(f"{served.server.url}{path}")
    expect(seen.page.locator(f"{ROWS} button").first).to_be_visible()
    return seen.page


def test_confirming_by_hand_and_by_keys(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = opened(seen, served, f"/datasets/{dataset.name}/review")
        expect(page.locator("#sum")).to_contain_text(f"0 of {MANY + 1} annotations confirmed (0 %), 0 looked at.")
        page.fill("#name", "alice")
        page.click("#reviewer button")
        page.wait_for_url(f"**/~alice/datasets/{dataset.name}/review")
        rows = page.locator(ROWS)
        expect(rows).to_have_count(50)
        rows.nth(0).get_by_role("button").click()
        expect(rows.nth(0)).to_contain_text("confirmed by alice")
        expect(rows.nth(0).get_by_role("button")).to_be_focused()
        expect(rows.nth(0).get_by_role("button")).to_have_text("Withdraw")
        rows.nth(1).focus()
        page.keyboard.press("c")
        expect(rows.nth(1)).to_contain_text("confirmed by alice")
        expect(page.locator("#message")).to_have_text("1 confirmed.")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("w")
        expect(rows.nth(1)).to_contain_text("not looked at")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("w")
        expect(page.locator("#message")).to_contain_text("nothing to withdraw")
        page.keyboard.press("n")
        expect(rows.nth(1)).to_contain_text("confirmed by alice")
        expect(rows.nth(2)).to_be_focused()
        expect(page.locator("#matching")).to_have_text(f"{MANY + 1 - 2} in this choice, and 2 just confirmed")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("w")
        expect(rows.nth(1)).to_contain_text("not looked at")
        expect(page.locator("#sum")).to_contain_text(f"1 of {MANY + 1}")
        assert [item["review"]["author"] for item in stored(dataset).values() if is_confirmed(item)] == ["alice"]
        page.click("#next")
        expect(rows).to_have_count(MANY + 1 - 50)
        page.click("#confirm-all")
        expect(page.locator("#sum")).to_contain_text(f"12 of {MANY + 1}")
        page.reload()  # the place is in the address; what was confirmed before is not listed any longer
        expect(page.locator("#annotations")).to_contain_text("No annotation in this choice.")
        page.click("#back")
        expect(rows).to_have_count(49)
        assert seen.hosts() == {"127.0.0.1"}
        assert seen.complaints == []


def test_what_somebody_else_moved_is_refused_and_told(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen, Connection(served.server) as bob:
        page = opened(seen, served, f"/~alice/datasets/{dataset.name}/review")
        url = f"/~bob/{dataset.name}/annotations/x0y0z0/centroids.json?id={0:040x}"
        bob.request("PATCH", url, json.dumps(point(0, 40, 41, 5)).encode())
        row = page.locator(ROWS).nth(0)
        row.get_by_role("button").click()
        expect(page.locator("#message")).to_contain_text("It was moved since it was listed; look at it again.")
        expect(row).to_contain_text("look at it again")
        expect(row).to_contain_text("40, 41, 5")
        assert not any(map(is_confirmed, stored(dataset).values()))
        row.get_by_role("button").click()
        expect(row).to_contain_text("confirmed by alice")
        assert is_confirmed(stored(dataset)[f"{0:040x}"])
        # What others do comes by itself, and nothing moves from its place.
        page.locator(ROWS).nth(30).focus()
        place = page.evaluate("scrollY")
        body = {"reviewed": True, "ids": [f"{30:040x}"]}
        bob.request("POST", f"/~bob/{dataset.name}/annotations/review", json.dumps(body).encode())
        expect(page.locator(ROWS).nth(30)).to_contain_text("confirmed by bob", timeout=20_000)
        expect(page.locator(ROWS).nth(30)).to_be_focused()
        assert page.evaluate("scrollY") == place
        assert seen.complaints == []


def test_narrowing_the_list_down(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = opened(seen, served, f"/datasets/{dataset.name}/review")
        rows = page.locator(ROWS)
        rows.nth(0).get_by_role("button").click()
        expect(page.locator("#message")).to_have_text("1 confirmed.")
        page.locator("#tables").get_by_role("link", name="20", exact=True).click()
        expect(rows).to_have_count(1)
        expect(page.locator("#message")).to_have_text("")
        expect(rows).to_contain_text("z-0020 · soma")
        page.select_option("select[name=type]", "point")
        expect(page.locator("#annotations")).to_contain_text("No annotation in this choice.")
        page.select_option("select[name=type]", "*")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("soma, polygon")
        assert page.input_value("input[name=slice]") == "20"
        page.select_option("select[name=anntype]", "glia")
        expect(page.locator("#annotations")).to_contain_text("No annotation in this choice.")
        page.fill("input[name=slice]", "6")
        page.keyboard.press("Enter")
        expect(page.locator("#matching")).to_have_text("20 in this choice")
        page.go_back()
        page.go_back()
        expect(page.locator("select[name=anntype]")).to_have_value("*")
        expect(rows).to_contain_text(["soma, polygon"])
        assert seen.complaints == []


def test_what_others_do_is_seen_at_once_and_is_not_what_one_has_looked_at(served: Served, dataset: Path) -> None:
    """Also where no count changes."""
    with visit(1280, 900) as seen, Connection(served.server) as bob:
        page = opened(seen, served, f"/~alice/datasets/{dataset.name}/review")
        page.wait_for_timeout(500)
        url = f"/~bob/{dataset.name}/annotations/x0y0z0/centroids.json?id={0:040x}"
        bob.request("PATCH", url, json.dumps(point(0, 40, 41, 5, anntype="glia", description="a vessel")).encode())
        row = page.locator(ROWS).nth(0)
        expect(row).to_contain_text("40, 41, 5", timeout=4000)
        expect(row).to_contain_text(f"a vesselcentroids · {0:040x}")
        expect(row).to_contain_text("moved it since it was listed")
        row.get_by_role("button").click()
        expect(page.locator("#message")).to_contain_text("0 confirmed. Refused:")
        assert not any(map(is_confirmed, stored(dataset).values()))
        row.get_by_role("button").click()
        expect(row).to_contain_text("confirmed by alice")
        expect(row).not_to_contain_text("moved")
        assert seen.complaints == []


def test_the_name_is_kept_on_the_way_over_the_datasets(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = opened(seen, served, f"/~alice/datasets/{dataset.name}/review")
        assert page.get_attribute("#name", "title") == "A name has 3 to 64 letters, digits, - or _."
        page.get_by_role("link", name="Datasets").click()
        page.wait_for_url("**/~alice/")
        page.locator(".card").filter(has_text=dataset.name).get_by_role("link", name=dataset.name).click()
        page.get_by_role("link", name="Review annotations").click()
        page.wait_for_url(f"**/~alice/datasets/{dataset.name}/review")
        assert page.input_value("#name") == "alice"
        page.go_back()
        page.get_by_role("link", name="Open in Neuroglancer").click()
        page.wait_for_selector(PANEL)
        assert seen.complaints == []


def test_a_place_opens_in_the_viewer(served: Served, dataset: Path) -> None:
    """As through a proxy that has the server under a prefix."""

    def proxied(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/lab/", "/", 1)))

    with visit(1000, 800) as seen:
        seen.page.context.route("**/*", lambda route: route.fulfill(status=404))
        seen.page.context.route("**/lab/**", proxied)
        seen.page.context.route("**/annotations/events", lambda route: route.abort())  # it would never be fetched whole
        page = opened(seen, served, f"/lab/~alice/datasets/{dataset.name}/review?anntype=soma")
        with page.context.expect_page() as arriving:
            page.locator(ROWS).get_by_role("link").click()
        viewer = arriving.value
        viewer.wait_for_selector(PANEL)
        expect(viewer.locator(".neuroglancer-layer-item")).to_have_count(2)
        state = json.loads(unquote(viewer.url.partition("#!")[2]))
        assert state["position"] == pytest.approx([5, 5, 20.5])
        sources = [layer["source"] for layer in state["layers"] if layer["type"] == "image"]
        assert sources == [f"precomputed://{served.server.url}/lab/{dataset.name}"]
        viewer.wait_for_function("window.viewer === undefined || viewer.isReady()")
        assert "Cannot" not in viewer.inner_text("body")
        page.locator(ROWS).focus()
        page.keyboard.press("o")  # the same window again
        page.wait_for_timeout(500)
        assert len(page.context.pages) == 2


def test_a_narrow_window(served: Served, dataset: Path) -> None:
    with visit(360, 700) as seen:
        page = opened(seen, served, f"/datasets/{dataset.name}/review")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        expect(page.locator(ROWS)).to_have_count(20)
        assert page.evaluate("document.documentElement.scrollHeight") < 4000, "some 5 screens"
        widths = page.evaluate("[...document.querySelectorAll('#annotations button')].map(each => each.offsetWidth)")
        page.locator(ROWS).nth(3).get_by_role("button").click()
        expect(page.locator(ROWS).nth(3)).to_contain_text("confirmed by anonymous")
        assert set(widths) == {page.locator(ROWS).nth(3).get_by_role("button").evaluate("each => each.offsetWidth")}


def test_a_server_that_is_gone_is_told(served: Served, dataset: Path) -> None:
    with visit(1000, 700) as seen:
        page = opened(seen, served, f"/datasets/{dataset.name}/review")
        page.context.route("**/annotations/**", lambda route: route.abort())
        page.locator(ROWS).nth(0).get_by_role("button").click()
        expect(page.locator("#message")).to_have_class("problem")
        expect(page.locator(ROWS).nth(0)).to_contain_text("not looked at")
