"""Readers of datasets, one file each, registered by `explorer.data.dataset.register`."""
