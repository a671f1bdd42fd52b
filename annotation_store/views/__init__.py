"""The annotations of a dataset as Neuroglancer's precomputed collections: computed from the leaves, never stored."""
