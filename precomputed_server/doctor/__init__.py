"""`precomputed doctor`: looks at what a server needs, judges it, and says what to do; changes and leaves nothing."""
