"""The whole path: convert, serve, view and annotate, each through what a user or a client runs."""
