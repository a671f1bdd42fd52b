"""How pages spell the URLs that `targets` reads: pure."""

from __future__ import annotations

from urllib.parse import quote

from precomputed_server.web.targets import DATASETS_SEGMENT, PAGES, tree_url


def page_url(path: str) -> str:
    """The percent-encoded URL path, without its first slash, of the page of a dataset."""
    place = f"{DATASETS_SEGMENT}/{tree_url(path)}"
    return f"{place}/" if path.rpartition("/")[2] in PAGES else place


def api_url(path: str) -> str:
    """The same of what the catalog's interface knows of a dataset; a browser would take a `.` alone out of a URL."""
    return f"api/v1/datasets/{quote(path) or '%2F.'}"
