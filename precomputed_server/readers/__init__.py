"""From bytes on disk to the bytes of a chunk: what lies where, and how it is decoded. Synchronous; no HTTP."""
