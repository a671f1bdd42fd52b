"""The Neuroglancer precomputed volume format as values and functions: no I/O, no HTTP.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
"""
