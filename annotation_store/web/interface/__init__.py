"""What is said of each route of annotations, as tables. Pure."""

from annotation_store.web.interface.exchange import EXCHANGE
from annotation_store.web.interface.leaves import LEAVES
from annotation_store.web.interface.review import REVIEWING
from annotation_store.web.interface.work import WORK
from precomputed_server.web.interface.operation import Section

ANNOTATIONS = Section(
    "annotations",
    "One leaf is a JSON list: `fibers`, `centroids` or a slice `z-NNNN` of a block",
    (*LEAVES, *WORK, *REVIEWING, *EXCHANGE),
)
