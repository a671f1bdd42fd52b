"""Annotations as block-organized JSON files with an edit log: no acknowledged edit is lost.

The core (model, merge, edits, blocks, log, store) knows no HTTP; `web.py` and `web_commit.py` are its face.
"""
