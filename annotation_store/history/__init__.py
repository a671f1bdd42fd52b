"""The edit log of a block: what is written, how it is read back, thinned out and checked.

A block's history directory holds segments, files of one JSON line a record. The newest segment is appended to; every
other one changes only when it is compacted. What one commit writes is a group: its last record says which files it
changes, so that a group without such an end was torn by a crash and never happened.
"""
