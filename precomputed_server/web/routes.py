"""The URL space as one table: pure."""

from __future__ import annotations

from dataclasses import dataclass

from precomputed_server.format.names import OPEN_PATH, VIEWER_PATH

READ = ("GET", "HEAD")
EDIT = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")
ACT = ("POST",)


@dataclass(frozen=True)
class Route:
    """One row of the URL space; `template` is how documents write it."""

    name: str
    template: str
    methods: tuple[str, ...]
    summary: str


INDEX = Route("index", "/index.html", READ, "The page that lists the datasets; `/` answers it too.")
API = Route("api", "/api/", READ, "This interface, to read and to try (Swagger UI); `/api/openapi.json` is its text.")
OPENAPI = Route("openapi", "/openapi.json", READ, "The text of this interface's description, as OpenAPI 3.1.")
DATASETS = Route("datasets", "/api/v1/datasets", READ, "The datasets of the catalog: search, count and sort them.")
DATASET = Route(
    "dataset",
    "/api/v1/datasets/{dataset}",
    (*READ, "PATCH"),
    "What the catalog knows of a dataset; change its title, description or tags.",
)
DATASET_HISTOGRAM = Route(
    "histogram", "/api/v1/datasets/{dataset}/histogram", READ, "The range and histogram of each channel of a layer."
)
DATASET_THUMBNAIL = Route(
    "thumbnail", "/api/v1/datasets/{dataset}/thumbnail.png", READ, "A small picture of the middle of a dataset."
)
DATASET_PREVIEW = Route("preview", "/api/v1/datasets/{dataset}/preview.png", READ, "A picture of one slice of a layer.")
DATASET_LINK = Route(
    "dataset link", "/api/v1/datasets/{dataset}/link", READ, "The link that shows a dataset in Neuroglancer."
)
DATASET_PROGRESS = Route(
    "dataset progress",
    "/api/v1/datasets/{dataset}/annotations/progress",
    READ,
    "How many annotations of a dataset are drawn, looked at and confirmed.",
)
LINK = Route("link", "/api/v1/link", READ, "One link that shows several datasets in Neuroglancer.")
STATES = Route("states", "/states", ACT, "Save a viewer state, for a short link.")
SAVED_STATE = Route("saved state", "/states/{id}", READ, "A saved viewer state.")
VIEWER = Route("viewer", f"/{VIEWER_PATH}", READ, "Neuroglancer, when the `viewer` extra is installed.")
OPEN = Route(
    "open",
    f"/{OPEN_PATH}{{dataset}}",
    READ,
    "The way to Neuroglancer with a dataset and its annotations in it.",
)
STATIC = Route("static", "/static/{file}", READ, "Style and script of the pages.")
ICON = Route("icon", "/favicon.ico", READ, "The pages' icon.")
HEALTH = Route("health", "/healthz", READ, "200 while the process serves.")
BLOCKS = Route("blocks", "/{dataset}/annotations/blocks", READ, "The annotation blocks of a dataset.")
LEAF = Route(
    "leaf",
    "/{dataset}/annotations/{block}/{leaf}.json",
    EDIT,
    "The annotations of one leaf: read, replace, and with `?id=` change or delete one.",
)
HISTORY = Route(
    "history",
    "/{dataset}/annotations/{block}/{leaf}/history",
    READ,
    "Who changed what in a leaf and when, newest first.",
)
RESTORE = Route(
    "restore",
    "/{dataset}/annotations/{block}/{leaf}/restore",
    ACT,
    "Bring back what a leaf, or one annotation of it, was before.",
)
ACTIVITY = Route(
    "activity",
    "/{dataset}/annotations/history",
    READ,
    "The newest edits of a dataset, and how many each author made on each day.",
)
EDITS = Route("edits", "/{dataset}/annotations/edits", ACT, "Many edits at once; all those of a block happen or none.")
EVENTS = Route("events", "/{dataset}/annotations/events", READ, "Every edit as it is made (Server-Sent Events).")
PARKED = Route("parked", "/{dataset}/annotations/parked", READ, "What of saves waits to be applied or discarded.")
PARKED_SAVE = Route("parked save", "/{dataset}/annotations/parked/{id}", READ, "What a save was that was not applied.")
PARKED_END = Route(
    "parked end", "/{dataset}/annotations/parked/{id}/{apply or discard}", ACT, "Apply what was parked, or discard it."
)
EXPORT = Route(
    "export", "/{dataset}/annotations/export", READ, "The annotations as CSV, SWC, GeoJSON or JSON lines, or some."
)
IMPORT = Route(
    "import", "/{dataset}/annotations/import", ACT, "Merge a file, or a Neuroglancer state, into the annotations."
)
VIEWER_STATE = Route(
    "viewer state", "/{dataset}/annotations/state", READ, "The Neuroglancer state in which the annotations are edited."
)
SAVES = Route("saves", "/{dataset}/annotations/saves", READ, "The asking session's last saves and what became of them.")
ID64 = Route("id64", "/{dataset}/annotations/id64/{n}", READ, "Which annotation has a number in Neuroglancer.")
COLLECTIONS = Route(
    "collections",
    "/{dataset}/annotations.precomputed/",
    READ,
    "The annotations as Neuroglancer's precomputed collections: which there are.",
)
COLLECTION = Route(
    "collection",
    "/{dataset}/annotations.precomputed/{collection}/{file}",
    READ,
    "A file of a collection, made of the newest annotations.",
)
PROGRESS = Route(
    "progress", "/{dataset}/annotations/progress", READ, "How many annotations are drawn, looked at and confirmed."
)
REVIEW = Route(
    "review", "/{dataset}/annotations/review", (*READ, *ACT), "What is left to review; confirm it, or withdraw that."
)
DATASET_PAGE = Route("dataset page", "/datasets/{dataset}", READ, "The page of a dataset: a look at it, and its links.")
ANNOTATION_PAGE = Route(
    "annotation page", "/datasets/{dataset}/annotations", READ, "The page of a dataset's edits and how far they are."
)
REVIEW_PAGE = Route("review page", "/datasets/{dataset}/review", READ, "The page on which people review annotations.")
CHUNK = Route(
    "chunk",
    "/{dataset}/{x}_{y}_{z}/{leaf}[.tiff]",
    READ,
    "One chunk: the C-order bytes of the (channel, z, y, x) array, whatever file it lies in.",
)
CUTOUT = Route(
    "cutout",
    "/{dataset}/{x}_{y}_{z}/cutout",
    READ,
    "The voxels of any box of a scale as raw bytes, NumPy array, TIFF stack or PNG.",
)
TREE = Route("tree", "/{any path}", READ, "A file, or with a trailing `/` the listing of a directory.")

ROUTES = (
    INDEX,
    API,
    OPENAPI,
    DATASETS,
    DATASET,
    DATASET_HISTOGRAM,
    DATASET_THUMBNAIL,
    DATASET_PREVIEW,
    DATASET_LINK,
    DATASET_PROGRESS,
    LINK,
    STATES,
    SAVED_STATE,
    VIEWER,
    OPEN,
    STATIC,
    ICON,
    HEALTH,
    BLOCKS,
    LEAF,
    HISTORY,
    RESTORE,
    ACTIVITY,
    EDITS,
    EVENTS,
    PARKED,
    PARKED_SAVE,
    PARKED_END,
    EXPORT,
    IMPORT,
    VIEWER_STATE,
    SAVES,
    ID64,
    COLLECTIONS,
    COLLECTION,
    PROGRESS,
    REVIEW,
    DATASET_PAGE,
    ANNOTATION_PAGE,
    REVIEW_PAGE,
    CHUNK,
    CUTOUT,
    TREE,
)
