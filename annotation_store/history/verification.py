"""STUB by the lead until helper A's module is here: A overwrites this file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Version:
    version: int
    time: str
    author: str
    items: dict
    data: bytes
    etag: str


@dataclass
class Entry:
    pass


@dataclass
class Report:
    pass


@dataclass
class Finding:
    pass


class Versions:
    def __init__(self, history):
        pass

    def by_etag(self, leaf, etag):
        return None

    def recent(self, leaf, since):
        return iter(())


def compact(*a, **k):
    raise NotImplementedError


def verify(*a, **k):
    raise NotImplementedError
