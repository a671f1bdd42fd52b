"""What has to be so when an order is carried out: that the leaf, or the annotation, is the one that its author saw."""

from __future__ import annotations

from annotation_store.committing.working import Working
from annotation_store.history.delta import same
from annotation_store.history.versions import Versions
from annotation_store.orders import Part
from precomputed_server.errors import PreconditionFailed

ANY_VERSION = "*"


def check_part(part: Part, working: Working, versions: Versions) -> None:
    """Raise PreconditionFailed unless the leaf at work has an entity tag that the part names, and its annotation is
    what it was in the version that the part names; NotFound, Gone where there is no such version.
    """
    if part.if_match is not None:
        check_version(part.if_match, working.etag())
    if part.seen is not None and part.id is not None:
        leaf = working.leaf
        known = leaf.content.items if part.seen == leaf.version else versions.content(part.leaf, part.seen).items
        if not same(known.get(part.id), working.items.get(part.id)):
            raise PreconditionFailed(
                f"Somebody has changed or deleted this annotation since version {part.seen}; look at it again.",
                working.etag(),
            )


def check_version(if_match: tuple[str, ...], etag: str | None) -> None:
    """Raise PreconditionFailed unless `if_match` names `etag`, that of what is stored; None: nothing is."""
    if etag is None or not {etag, ANY_VERSION} & set(if_match):
        raise PreconditionFailed("The stored version is not the one that If-Match names; read it again.", etag)
