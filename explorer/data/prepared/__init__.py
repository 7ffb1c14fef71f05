"""Prepared data: clips with reference geometry, in a few large files, ready for training.

`codes` turns maps into bytes and back, `shards` keeps bytes safe, `manifest` says how a store was
made, `make` fills it, `scene` reads it.
"""
