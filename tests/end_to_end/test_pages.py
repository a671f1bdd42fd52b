"""The pages in a real browser: found, looked through, opened, followed, and usable by everybody."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import StartServer, missing
from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.browser import PANEL, Visit, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

SIZE = (1, 30, 70, 80)
NARROW = 360


@pytest.fixture
def dataset(served: Served, request: pytest.FixtureRequest) -> Path:
    """A dataset of its own, with three blocks of annotations."""
    directory = served.root / str(request.node.name).replace("[", "_").replace("]", "")
    write_dataset(directory, volume(SIZE, "uint8"))
    for at, block in enumerate(("x0y0z0", "x1y0z0", "x0y1z0")):
        points = [point(100 * at + number, number + 0.5, 20, 5 + number // 2) for number in range(9)]
        write_annotations(directory, {"centroids": points}, block=block, block_size=(40, 40, 30))
    return directory


def listed(seen: Visit, served: Served, name: str) -> Page:
    """The start page once it has the card of a dataset."""
    seen.page.goto(served.server.url)
    expect(seen.page.locator(f'li.card[data-path="{name}"]')).to_be_visible()
    return seen.page


def edited(served: Served, path: str, body: Any, method: str = "POST") -> Any:  # noqa: ANN401
    """What the server answers to an edit."""
    with Connection(served.server) as other:
        return json.loads(other.request(method, path, json.dumps(body).encode()).body)


def test_from_the_search_to_the_viewer(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = listed(seen, served, dataset.name)
        expect(page.locator("li.card img").first).to_be_visible()
        page.get_by_role("searchbox").press_sequentially("nothing is called so")
        expect(page.locator("#found")).to_contain_text("No dataset is like that")
        page.get_by_role("searchbox").fill("from_the")
        expect(page.locator("li.card")).to_have_count(1)
        assert page.url.endswith("?q=from_the")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.get_by_role("checkbox", name=re.compile("^complete")).check()
        page.wait_for_url("**/?q=from_the&state=complete")
        expect(page.locator("li.card")).to_have_count(1)
        page.get_by_role("link", name=dataset.name).click()
        preview = page.locator("#preview")
        expect(preview).to_be_visible()
        expect(page.locator("#shown-z")).to_have_text("15 of 0 to 29")
        page.get_by_role("slider", name="Slice").press("ArrowRight")
        expect(page.locator("#shown-z")).to_have_text("16 of 0 to 29")
        page.wait_for_function("() => document.querySelector('#preview').src.includes('z=16&')")
        assert preview.evaluate("image => image.naturalWidth") == SIZE[3]
        page.get_by_role("link", name="Open in Neuroglancer").click()
        page.wait_for_selector(PANEL)
        state = json.loads(unquote(page.url.partition("#!")[2]))
        assert state["layers"][0]["source"].endswith(f"/{dataset.name}")
        assert seen.hosts() == {"127.0.0.1"}
        assert seen.complaints == []


def test_the_contrast_that_is_chosen_is_drawn_and_opened(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = seen.page
        page.goto(f"{served.server.url}/datasets/{dataset.name}")
        white = page.get_by_label("Values: white at")
        expect(page.locator("#preview")).to_be_visible()
        white.focus()
        for _ in range(20):
            white.press("ArrowLeft")
        chosen = float(white.evaluate("input => input.parentElement.querySelector('output').value"))
        assert 0 < chosen < 255
        page.wait_for_function("end => document.querySelector('#preview').src.endsWith(end)", arg=f"%2C{chosen:g}")
        page.get_by_role("link", name="Open in Neuroglancer").click()
        page.wait_for_selector(PANEL)
        state = json.loads(unquote(page.url.partition("#!")[2]))
        assert [control["range"][1] for control in state["layers"][0]["shaderControls"].values()] == [chosen]
        assert seen.complaints == []


def test_several_datasets_are_opened_together(served: Served, dataset: Path) -> None:
    write_dataset(served.root / f"{dataset.name} 2", volume(SIZE, "uint8"))
    with visit(1280, 900) as seen:
        listed(seen, served, dataset.name)
        page = listed(seen, served, f"{dataset.name} 2")
        for name in (dataset.name, f"{dataset.name} 2"):
            page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
        expect(page.locator("#chosen")).to_have_text("2 datasets selected")
        page.get_by_role("button", name="Open together").click()
        page.wait_for_selector(PANEL)
        state = json.loads(unquote(page.url.partition("#!")[2]))
        assert {layer["name"] for layer in state["layers"] if layer["type"] == "image"} == {
            dataset.name,
            f"{dataset.name} 2",
        }


def test_without_a_script_the_search_is_a_form(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        listed(seen, served, dataset.name)  # the catalog knows it
        context = seen.page.context.browser.new_context(java_script_enabled=False)  # type: ignore[union-attr]
        page = context.new_page()
        page.goto(served.server.url)
        page.get_by_role("searchbox").fill("without_a")
        page.get_by_role("checkbox", name=re.compile("^complete")).check()
        page.get_by_role("button", name="Search").click()
        expect(page.locator("li.card")).to_have_count(1)
        expect(page.locator("li.card")).to_contain_text("80 × 70 × 30")
        context.close()


def test_what_people_say_of_a_dataset_is_edited_in_place(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        page = listed(seen, served, dataset.name)
        page.get_by_role("link", name=dataset.name).click()
        page.get_by_text("Edit title, description and tags").click()
        page.get_by_role("textbox", name="Title", exact=True).fill('A "brain" <b>')
        page.get_by_role("textbox", name="Tags").fill("cleared, left")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text('A "brain" <b>')
        expect(page.locator(".tag")).to_have_text(["cleared", "left"])


def test_the_words_of_others_stay_as_they_are(served: Served, dataset: Path) -> None:
    api = f"/api/v1/datasets/{dataset.name}"
    with visit(1280, 900) as seen:
        page = listed(seen, served, dataset.name)
        edited(served, api, {"title": "First", "tags": ["left side", "cleared"]}, "PATCH")
        with page.expect_response(f"**{api}"):
            page.goto(f"{served.server.url}/datasets/{dataset.name}")
        page.get_by_text("Edit title, description and tags").click()
        title, description = (page.get_by_role("textbox", name=name, exact=True) for name in ("Title", "Description"))
        tags = page.get_by_role("textbox", name="Tags")
        expect(tags).to_have_value("left side, cleared")
        edited(served, api, {"title": "Theirs", "description": "What they say"}, "PATCH")
        title.fill("Mine")
        tags.fill("left side, cleared, two words")
        page.get_by_role("button", name="Save", exact=True).click()
        told = page.get_by_text("Not saved: somebody else has changed it meanwhile")
        expect(told).to_contain_text("Their title: Theirs")
        expect(description).to_have_value("What they say")
        expect(title).to_have_value("Mine")
        kept = edited(served, api, None, "GET")
        assert (kept["title"], kept["tags"]) == ("Theirs", ["left side", "cleared"])
        with page.expect_request(lambda request: request.method == "PATCH") as asked:
            page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Mine")
        assert asked.value.post_data_json == {"title": "Mine", "tags": ["left side", "cleared", "two words"]}
    kept = edited(served, api, None, "GET")
    assert (kept["description"], kept["tags"]) == ("What they say", ["left side", "cleared", "two words"])


def test_what_was_drawn_in_the_viewer_is_saved(served: Served, dataset: Path) -> None:
    with urllib.request.urlopen(f"{served.server.url}/{dataset.name}/annotations/state", timeout=10) as answer:
        state = json.loads(answer.read())
    layer = next(layer for layer in state["layers"] if layer["type"] == "annotation")
    layer["annotations"].append({"type": "point", "id": "new", "point": [7.5, 8.5, 9.5]})
    with visit(1280, 900) as seen:
        page = seen.page
        page.goto(f"{served.server.url}/datasets/{dataset.name}")
        page.get_by_label("Address or state").fill(json.dumps(state))
        page.get_by_label("You are").fill("alice")
        page.get_by_role("button", name="See what would change").click()
        expect(page.locator("#imported")).to_have_text("It would be: 1 added, 27 unchanged.")
        page.get_by_role("button", name="Save to dataset").click()
        expect(page.locator("#imported")).to_contain_text("Done: 1 added, 27 unchanged.")
        assert seen.complaints == []
    found = edited(served, f"/{dataset.name}/annotations/history", None, "GET")
    assert [(edit["author"], edit["operation"]) for edit in found["edits"]] == [("alice", "add")]


def test_a_session_of_neurotrale_is_followed(start_server: StartServer, tmp_path: Path) -> None:
    write_dataset(tmp_path / "brain", volume(SIZE, "uint8"))
    server = start_server(tmp_path, "--neurotrale-url", "about:blank#{state}", workers=1)
    served = Served(tmp_path, server)
    with visit(1280, 900) as seen:
        page = seen.page
        page.goto(f"{server.url}/datasets/brain")
        page.get_by_label("You annotate as").fill("alice")
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Open in NeuroTrALE").click()
        state = json.loads(unquote(opened.value.url.partition("#")[2]))
        source = f"precomputed://{server.url}/~alice.voxel/brain"
        assert [layer["source"] for layer in state["layers"].values()] == [source]
        expect(page.locator("#neurotrale-source")).to_have_text(source)
        expect(page.locator("#sum-of-saves")).to_have_text("Nothing was saved yet.")
        leaf = "/~alice.voxel/brain/annotations/x0y0z0/centroids.json"
        edited(served, leaf, [point(1, 5, 5, 5), point(2, 6, 6, 6)], "PUT")
        expect(page.locator("#saves tbody tr")).to_have_count(1)
        edited(served, leaf, [], "PUT")
        expect(page.locator("#saves tbody tr").first).to_contain_text("kept back")
        expect(page.locator("#sum-of-saves")).to_contain_text("1 wait")
        assert seen.complaints == []


def test_the_annotation_page_follows_and_undoes(served: Served, dataset: Path) -> None:
    place = f"{dataset.name}/annotations"
    with visit(1280, 900) as seen:
        page = seen.page
        page.goto(f"{served.server.url}/~carol/datasets/{dataset.name}/annotations")
        expect(page.locator("#sum")).to_have_text("0 of 27 annotations confirmed (0 %), 0 looked at.")
        expect(page.locator(".heat td a")).to_have_text(["0 / 9", "0 / 9", "0 / 9"])
        edited(served, f"/~bob/{place}/review", {"reviewed": True, "where": {"slice": 5}})
        expect(page.locator(".heat td a")).to_have_text(["2 / 9", "2 / 9", "2 / 9"])
        expect(page.locator("#days")).to_contain_text("bob")
        id = f"{0:040x}"
        edited(served, f"/~bob/{place}/x0y0z0/centroids.json?id={id}", point(0, 30, 30, 5), "PATCH")
        row = page.locator("#edits tbody tr", has_text="changed").first
        expect(row).to_contain_text("x0y0z0/centroids")
        row.get_by_role("button", name="Undo").click()
        expect(page.locator("#edits tbody tr").first).to_contain_text("restored")
        items = json.loads((dataset / "annotations" / "x0y0z0" / "centroids.json").read_bytes())
        assert next(item for item in items if item["id"] == id)["point"] == [0.5, 20, 5]
        last = edited(served, f"/{place}/history", None, "GET")["edits"][0]
        assert (last["author"], last["operation"]) == ("carol", "restore")
        assert seen.complaints == []


@pytest.mark.parametrize("deed", ["added", "changed"])
def test_what_somebody_else_did_meanwhile_is_not_undone(served: Served, dataset: Path, deed: str) -> None:
    place = f"{dataset.name}/annotations/x0y0z0/centroids"
    added, id = point(50, 3, 3, 3), f"{50:040x}"
    edited(served, f"/~alice/{place}.json?id={id}", added, "PATCH")
    if deed == "changed":
        edited(served, f"/~alice/{place}.json?id={id}", {**added, "point": [4, 4, 4]}, "PATCH")
    with visit(1280, 900) as seen:
        page = seen.page

        def late(route: Route) -> None:
            edited(served, f"/~bob/{place}.json?id={id}", {**added, "point": [9, 9, 9]}, "PATCH")
            route.continue_()

        page.route("**/centroids/restore" if deed == "changed" else "**/centroids.json?id=*", late)
        page.goto(f"{served.server.url}/~alice/datasets/{dataset.name}/annotations")
        page.locator("#edits tbody tr", has_text=deed).get_by_role("button", name="Undo").click()
        expect(page.get_by_text("Not undone: Somebody has changed or deleted this annotation since")).to_be_visible()
        expect(page.locator("#edits tbody tr").first).to_contain_text("bob")
    items = json.loads((dataset / "annotations" / "x0y0z0" / "centroids.json").read_bytes())
    assert next(item for item in items if item["id"] == id)["point"] == [9, 9, 9]


@pytest.mark.parametrize("is_cut", [False, True])
def test_the_annotation_page_says_that_not_all_edits_are_counted(served: Served, dataset: Path, is_cut: bool) -> None:
    answer = {"edits": [], "days": [], "cut": is_cut}
    with visit(1280, 900) as seen:
        page = seen.page
        page.route("**/annotations/history?*", lambda route: route.fulfill(json=answer))
        page.goto(f"{served.server.url}/datasets/{dataset.name}/annotations")
        expect(page.locator("#edits")).to_have_text("There is none.")
        expect(page.get_by_text("only the newest are counted")).to_be_visible(visible=is_cut)
        assert seen.complaints == []


def test_what_is_parked_is_decided(served: Served, dataset: Path) -> None:
    leaf = f"/~eve/{dataset.name}/annotations/x0y0z0/centroids.json"
    with visit(1280, 900) as seen, Connection(served.server) as eve:
        eve.request("GET", leaf)
        eve.request("PUT", leaf, b"[]")
        eve.request("PUT", leaf, b"[no JSON")
        page = seen.page
        page.goto(f"{served.server.url}/datasets/{dataset.name}/annotations")
        rows = page.locator("#parked tbody tr")
        expect(rows).to_have_count(2)
        page.get_by_role("row", name="not JSON").get_by_role("button", name="Discard").click()
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("removes 9")
        rows.get_by_role("button", name="Apply").click()
        expect(page.locator("#parked")).to_have_text("Nothing waits.")
        expect(page.locator("#sum")).to_contain_text("0 of 18")


HOSTILE = (
    "'><img src=x onerror=alert(1)>",
    '"onmouseover="alert(1)',
    "a#b?c &amp;",
    "x..%2f..%2fetc",
    "دماغ {{7*7}}",
    "~review",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_in_every_page(served: Served, name: str) -> None:
    place = f"{name}/review"  # which is a part of its path here
    write_dataset(served.root / place, volume(SIZE, "uint8"))
    write_annotations(served.root / place, {"centroids": [point(1, 5, 5, 5)]})
    with visit(1280, 900) as seen:
        page = seen.page
        page.on("dialog", lambda dialog: seen.complaints.append(dialog.message))
        page.goto(served.server.url)
        card = page.locator("li.card", has=page.locator(".path", has_text=place))
        expect(card.locator("img")).to_be_visible()
        card.get_by_role("link", name="review", exact=True).click()
        expect(page.locator(".path")).to_contain_text(place)
        expect(page.locator("#preview")).to_be_visible()
        for title, heading in (("Annotations", "Annotations: review"), ("Review annotations", "Review: review")):
            page.get_by_role("link", name=title, exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(heading)
            expect(page.locator("#sum")).to_contain_text("0 of 1")
            page.go_back()
        expect(page.locator(".path")).to_contain_text(place)
        page.get_by_role("link", name="Open in Neuroglancer").click()
        page.wait_for_selector(PANEL)
        assert seen.complaints == []


def test_the_python_that_is_copied_reads_the_volume(served: Served, dataset: Path) -> None:
    with visit(1280, 900) as seen:
        seen.page.goto(f"{served.server.url}/datasets/{dataset.name}")
        codes = {
            title: seen.page.get_by_label(title, exact=True).text_content() or ""
            for title in ("Python with tensorstore", "Python with cloud-volume")
        }
    for title, code in codes.items():
        scope: dict[str, Any] = {}
        exec(code, scope)
        read = scope["volume"][:, :, :]
        voxels = np.asarray(read.read().result() if "tensorstore" in title else read)
        np.testing.assert_array_equal(np.squeeze(voxels).T, volume(SIZE, "uint8")[0])


PAGES = ("", "?state=unusable", "datasets/{name}", "datasets/{name}/annotations", "datasets/{name}/review")


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        missing("axe-playwright-python is not installed")
        raise AssertionError
    page.evaluate(Path(found.origin).with_name("axe.min.js").read_text())
    told = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {', '.join(str(node['target']) for node in rule['nodes'])}" for rule in told]


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [NARROW, 1280])
def test_everybody_can_use_every_page(served: Served, dataset: Path, width: int, is_dark: bool) -> None:
    bad = served.root / "bad"
    bad.mkdir(exist_ok=True)
    (bad / "info").write_text("{")
    place = f"/~eve/{dataset.name}/annotations"
    edited(served, f"{place}/review", {"reviewed": True, "where": {"slice": 5}})
    with Connection(served.server) as eve:
        eve.request("GET", f"{place}/x0y0z0/centroids.json")
        eve.request("PUT", f"{place}/x0y0z0/centroids.json", b"[]")
    with visit(width, 900) as seen:
        listed(seen, served, dataset.name)
        seen.page.emulate_media(color_scheme="dark" if is_dark else "light")
        for path in PAGES:
            seen.page.goto(f"{served.server.url}/{path.format(name=dataset.name)}")
            seen.page.wait_for_load_state("load")
            seen.page.wait_for_timeout(500)
            assert violations(seen.page) == [], path
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert seen.complaints == []
