"""The page on which the interface is read and tried, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.data import volume, write_dataset
from tests.end_to_end.browser import visit
from tests.end_to_end.conftest import Served

pytestmark = pytest.mark.component


@pytest.mark.parametrize(("prefix", "scheme"), [("", "light"), ("/~alice", "dark")])
def test_a_request_is_tried_on_the_interface_page(served: Served, prefix: str, scheme: str) -> None:
    directory = served.root / "tissue"
    if not directory.exists():
        directory.mkdir()
        write_dataset(directory, volume((1, 20, 64, 64)))
    with visit(1200, 900) as seen:
        page = seen.page
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.goto(f"{served.server.url}{prefix}/api/")
        row = page.locator(".opblock-get").filter(has_text="/{dataset}/annotations/blocks")
        row.locator(".opblock-summary").click()
        row.get_by_role("button", name="Try it out").click()
        row.get_by_role("button", name="Execute").click()
        url = f"{served.server.url}{prefix}/tissue/annotations/blocks"
        expect(row.locator(".request-url")).to_contain_text(url)
        expect(row.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
        assert seen.complaints == []
        assert seen.hosts() == {"127.0.0.1"}
