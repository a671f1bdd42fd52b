"""What happens to the annotations of a dataset, as events: read from the edit logs, which alone are the truth.

An event is made of a line of a log and of nothing else. So every process and every host makes the same event of it, now
and later, and whoever knows the id of one can be told everything since.
"""
