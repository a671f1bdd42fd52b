"""Annotations in other programs' formats: written from one version of each leaf, and read back as edits of it.

Pure values and formats, and `collect` and `importing`, which read the store.
"""
