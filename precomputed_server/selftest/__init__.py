"""The server tried on a mount of one's own: annotators who edit while its processes are killed, and a checker.

It knows the server from outside only: by HTTP, by its processes and by the files that it leaves.
"""
