"""What a path means, before anything is looked up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precomputed_server.errors import InvalidPath, NotFound
from precomputed_server.web.addresses import page_url
from precomputed_server.web.routes import (
    ANNOTATION_PAGE,
    API,
    BLOCKS,
    CHUNK,
    CUTOUT,
    DATASET_PAGE,
    EDITS,
    EXPORT,
    HEALTH,
    HISTORY,
    IMPORT,
    INDEX,
    LEAF,
    PARKED,
    PARKED_END,
    PARKED_SAVE,
    PROGRESS,
    RESTORE,
    REVIEW,
    REVIEW_PAGE,
    SAVES,
    TREE,
    VIEWER,
    VIEWER_STATE,
    Route,
)
from precomputed_server.web.targets import RESERVED, Session, parse_target


@pytest.mark.parametrize(
    ("raw_path", "route", "path"),
    [
        ("/", INDEX, ""),
        ("/index.html", INDEX, ""),
        ("/api/", API, ""),
        ("/api/openapi.json", API, "openapi.json"),
        ("/healthz", HEALTH, ""),
        ("/neuroglancer/v/1/main.js", VIEWER, "v/1/main.js"),
        ("/brain/info", TREE, "brain/info"),
        ("//lab///run3//info", TREE, "lab/run3/info"),
        ("/~/api/info", TREE, "api/info"),
        ("/~/", TREE, ""),
        ("/brain/1_1_1/0-64_0-64_0-25", CHUNK, "brain/1_1_1/0-64_0-64_0-25"),
        ("/0-64_0-64_0-25.tiff", CHUNK, "0-64_0-64_0-25.tiff"),
        ("/brain/1_1_1/-64-0_0-64_-5--1", CHUNK, "brain/1_1_1/-64-0_0-64_-5--1"),
        ("/brain/1_1_1/cutout", CUTOUT, "brain/1_1_1/cutout"),
        ("/~/api/mip/0/cutout", CUTOUT, "api/mip/0/cutout"),
        ("/1_1_1/cutout", CUTOUT, "1_1_1/cutout"),
        ("/cutout", TREE, "cutout"),
        ("/brain/1_1_1/cutout/", TREE, "brain/1_1_1/cutout"),
        ("/brain/annotations/x0y0z0/cutout.json", LEAF, "brain/annotations/x0y0z0/cutout.json"),
        ("/brain/mesh_mip_0_err_40/123", TREE, "brain/mesh_mip_0_err_40/123"),
        ("/brain/annotations/x0y0z0/fibers.json", LEAF, "brain/annotations/x0y0z0/fibers.json"),
        ("/annotations/x0y0z0/fibers.json", LEAF, "annotations/x0y0z0/fibers.json"),
        ("/brain/annotations/blocks", BLOCKS, "brain/annotations/blocks"),
        ("/brain/annotations/edits", EDITS, "brain/annotations/edits"),
        ("/brain/annotations/saves", SAVES, "brain/annotations/saves"),
        ("/brain/annotations/export", EXPORT, "brain/annotations/export"),
        ("/brain/annotations/import", IMPORT, "brain/annotations/import"),
        ("/brain/annotations/state", VIEWER_STATE, "brain/annotations/state"),
        ("/brain/annotations/x0y0z0/export", TREE, "brain/annotations/x0y0z0/export"),
        ("/brain/annotations/progress", PROGRESS, "brain/annotations/progress"),
        ("/brain/annotations/review", REVIEW, "brain/annotations/review"),
        ("/brain/annotations/review/", TREE, "brain/annotations/review"),
        ("/datasets/lab/run3/review", REVIEW_PAGE, "lab/run3"),
        ("/datasets/~/api/review", REVIEW_PAGE, "api"),
        ("/datasets/review", REVIEW_PAGE, ""),
        ("/datasets/lab/run3", DATASET_PAGE, "lab/run3"),
        ("/datasets/~/api", DATASET_PAGE, "api"),
        ("/datasets/~/~", DATASET_PAGE, "~"),
        ("/datasets/", DATASET_PAGE, ""),
        ("/datasets/lab/run3/annotations", ANNOTATION_PAGE, "lab/run3"),
        ("/datasets/lab/review/", DATASET_PAGE, "lab/review"),
        ("/datasets/lab/review/review", REVIEW_PAGE, "lab/review"),
        ("/datasets/annotations", ANNOTATION_PAGE, ""),
        ("/brain/annotations/parked", PARKED, "brain/annotations/parked"),
        ("/brain/annotations/parked/0123", PARKED_SAVE, "brain/annotations/parked/0123"),
        ("/brain/annotations/parked/0123/apply", PARKED_END, "brain/annotations/parked/0123/apply"),
        ("/brain/annotations/parked/0123/discard", PARKED_END, "brain/annotations/parked/0123/discard"),
        ("/brain/annotations/x0y0z0/fibers/history", HISTORY, "brain/annotations/x0y0z0/fibers/history"),
        ("/brain/annotations/x0y0z0/fibers/restore", RESTORE, "brain/annotations/x0y0z0/fibers/restore"),
        ("/brain/annotations/x0y0z0/history", TREE, "brain/annotations/x0y0z0/history"),
        ("/brain/annotations/parked/0123/other", TREE, "brain/annotations/parked/0123/other"),
        ("/brain/annotations/block_info.csv", TREE, "brain/annotations/block_info.csv"),
        ("/brain/annotations/x0y0z0/fibers.json/", TREE, "brain/annotations/x0y0z0/fibers.json"),
        ("/a%20b/%C3%A9", TREE, "a b/é"),
        ("/100%25/x", TREE, "100%/x"),
    ],
)
def test_paths_and_their_routes(raw_path: str, route: Route, path: str) -> None:
    target = parse_target(raw_path)
    assert (target.route, target.path) == (route, path)


def test_the_parts_of_a_leaf_at_any_depth() -> None:
    parts = parse_target("/lab/run3/annotations/x1y2z3/z-0020.json").parts
    assert parts == {"dataset": "lab/run3", "block": "x1y2z3", "leaf": "z-0020"}


def test_the_last_annotations_segment_counts() -> None:
    parts = parse_target("/annotations/annotations/annotations/x0y0z0/fibers.json").parts
    assert parts["dataset"] == "annotations/annotations"


@pytest.mark.parametrize(
    ("raw_path", "session", "path"),
    [
        ("/~alice/brain/info", Session("alice", voxel_view=False), "brain/info"),
        ("/~alice.voxel/brain/info", Session("alice", voxel_view=True), "brain/info"),
        ("/~a-b_9.voxel/~/api/info", Session("a-b_9", voxel_view=True), "api/info"),
        ("/~alice/", Session("alice", voxel_view=False), ""),
    ],
)
def test_a_session_prefix_is_the_same_tree(raw_path: str, session: Session, path: str) -> None:
    target = parse_target(raw_path)
    assert (target.session, target.path) == (session, path)


@pytest.mark.parametrize("name", ["ab", "a" * 65, "al.ice", "alice.voxels", "al ice", "é-é-é"])
def test_a_misspelled_session_prefix_is_not_found(name: str) -> None:
    with pytest.raises(NotFound, match="session prefix"):
        parse_target(f"/~{name}/brain/info")


@pytest.mark.parametrize(
    "raw_path",
    [
        "/../x",
        "/a/../b",
        "/a/./b",
        "/%2e%2e/x",
        "/.%2e/x",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a%00b",
        "/a%0ab",
        "/%7f",
        "/%ff",
    ],
)
def test_segments_that_no_file_may_have(raw_path: str) -> None:
    with pytest.raises(InvalidPath):
        parse_target(raw_path)


@pytest.mark.parametrize(
    "raw_path",
    [
        "/.precomputed/dataset.json",
        "/a/.history/log.jsonl",
        "/~/.hidden",
        "/%2ehidden",
        "/a/.zgroup/",
        "/a/.zgroup/b",
        "/a/.zarrays",
        "/.precomputed/.zgroup",
        "/a/.zmetadata",
    ],
)
def test_names_with_a_dot_are_not_found(raw_path: str) -> None:
    with pytest.raises(NotFound, match="begin with a dot"):
        parse_target(raw_path)


@pytest.mark.parametrize("name", [".zgroup", ".zattrs", ".zarray", "zarr.json"])
def test_names_by_which_zarr_is_found_are_let_through(name: str) -> None:
    target = parse_target(f"/lab/brain/{name}")
    assert (target.route, target.path) == (TREE, f"lab/brain/{name}")


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_reached_behind_the_literal_prefix(name: str) -> None:
    assert parse_target(f"/~/{name}/info").path == f"{name}/info"


@given(st.lists(st.text(min_size=1), max_size=5), st.booleans())
def test_no_text_gets_past_the_border(segments: list[str], directory: bool) -> None:
    raw_path = "/" + "/".join(segments) + ("/" if directory else "")
    try:
        target = parse_target(raw_path)
    except (InvalidPath, NotFound, UnicodeEncodeError):
        return
    assert not any(segment in ("", ".", "..") for segment in target.path.split("/") if target.path)
    assert not any(character in target.path for character in "\\\0\n")


@given(st.lists(st.sampled_from(["a b", "api", "review", "annotations", "~", "~x", "datasets", "é"]), max_size=4))
def test_the_address_of_a_page_names_its_dataset(segments: list[str]) -> None:
    path = "/".join(segments)
    assert (parse_target(f"/{page_url(path)}").route, parse_target(f"/{page_url(path)}").path) == (DATASET_PAGE, path)
