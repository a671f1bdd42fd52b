"""Every exception that this project raises on purpose.

    PrecomputedError
    ├── InvalidInput              what the caller gave is wrong and the sentence says how to mend it
    │   ├── InvalidPath           a URL path that no file may have
    │   ├── InvalidJson           a body that is not JSON
    │   ├── InvalidAnnotation     JSON, but not an annotation; names the item and the field
    │   ├── TooLarge              more than a setting allows
    │   ├── KeyReused             an Idempotency-Key that came with another request before
    │   ├── TooSlow               a body that did not arrive in the time that a setting allows
    │   ├── UnsupportedMediaType  a body of a kind that is not understood here
    │   └── MethodNotAllowed      the resource exists, this method is not one of its own
    ├── NotFound                  absent: a viewer may draw emptiness
    ├── Gone                      it was there and is not kept any longer
    ├── Conflict                  the request contradicts what is stored or what was asked before
    ├── PreconditionFailed        If-Match names another version
    ├── RangeNotSatisfiable       no byte of the range exists
    ├── SourceError               a TIFF stack that cannot be converted as it is
    ├── DestinationExists         a conversion would overwrite something
    ├── Unreadable                present, but damaged or in a format that cannot be read: never drawn as empty
    ├── MissingExtra              an optional package is needed
    ├── WritesRefused             this server or this mount takes no writes
    │   └── NotPermitted          this user may not write there
    ├── StorageFull               no space, inodes or quota left
    ├── Defect                    this program failed; its log says why
    └── Busy                      try again after `retry_after` seconds

The web layer maps each class to one HTTP status (`web/respond.py`), the command line to an exit code
(`cli.py`): domain code knows neither.
"""

from __future__ import annotations


class PrecomputedError(Exception):
    """The root of the tree; `str(error)` is one sentence for a person."""


class InvalidInput(PrecomputedError):
    """What the caller gave is wrong."""


class InvalidPath(InvalidInput):
    """A URL path that no file beneath the root may have."""


class InvalidJson(InvalidInput):
    """A body that is not JSON."""


class InvalidAnnotation(InvalidInput):
    """JSON that is not a valid annotation; the sentence names the item and the field."""


class TooLarge(InvalidInput):
    """More bytes than a setting allows."""


class KeyReused(InvalidInput):
    """An Idempotency-Key that came with another request before."""


class TooSlow(InvalidInput):
    """A body that did not arrive in the time that a setting allows."""


class UnsupportedMediaType(InvalidInput):
    """A body of a media type that is not understood here."""


class MethodNotAllowed(InvalidInput):
    """The resource does not know this method; `allowed` lists those that it does."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible here; use {', '.join(allowed)}.")
        self.method, self.allowed = method, allowed

    def __reduce__(self) -> tuple[type[MethodNotAllowed], tuple[str, tuple[str, ...]]]:
        """How it is sent to another process."""
        return type(self), (self.method, self.allowed)


class NotFound(PrecomputedError):
    """Absent."""


class Gone(PrecomputedError):
    """It was there and is not kept any longer."""


class Conflict(PrecomputedError):
    """The request contradicts what is stored or what was asked before."""


class PreconditionFailed(PrecomputedError):
    """The stored version is not the one that the request names; `etag` is the stored one's."""

    def __init__(self, sentence: str, etag: str | None = None) -> None:
        super().__init__(sentence)
        self.etag = etag


class RangeNotSatisfiable(PrecomputedError):
    """No byte of the requested range exists; `length` is that of the whole, in bytes."""

    def __init__(self, length: int) -> None:
        super().__init__(f"The range lies outside the {length} bytes there are.")
        self.length = length

    def __reduce__(self) -> tuple[type[RangeNotSatisfiable], tuple[int]]:
        """How it is sent to another process."""
        return type(self), (self.length,)


class SourceError(PrecomputedError):
    """A TIFF stack that cannot be converted as it is."""


class DestinationExists(PrecomputedError):
    """A conversion would overwrite something that is there."""


class Unreadable(PrecomputedError):
    """A stored file that is damaged or in a format that cannot be read."""


class MissingExtra(PrecomputedError):
    """An optional package is needed; the sentence says how to install it."""


class WritesRefused(PrecomputedError):
    """This server or this mount takes no writes; the sentence says why."""


class NotPermitted(WritesRefused):
    """The user that the server runs as may not write there."""


class StorageFull(PrecomputedError):
    """No space, inodes or quota left."""


class Defect(PrecomputedError):
    """This program failed; its log says why."""


class Busy(PrecomputedError):
    """Too much at once; try again after `retry_after` seconds."""

    def __init__(self, sentence: str, retry_after: int = 2) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
