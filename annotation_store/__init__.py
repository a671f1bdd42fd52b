"""Annotations as block-organized JSON files with an edit log: no acknowledged edit is lost.

The core knows no HTTP; `web` is its face.
"""
