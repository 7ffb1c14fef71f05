"""Errors a user can cause. Each says what is wrong and what to do about it."""

from __future__ import annotations


class EmergeError(Exception):
    """Base of all errors that are shown to a user as they are, without a traceback."""


class ClipError(EmergeError):
    """The video or folder of images cannot be used."""


class BackboneError(EmergeError):
    """The backbone does not exist, cannot be loaded, or cannot take this clip, layer or sigma."""


class ProbeError(EmergeError):
    """The probe file is broken or was trained on other features."""


class ReferenceError3D(EmergeError):
    """The reference cannot reconstruct this clip."""


class NoReconstruction(ReferenceError3D):
    """This clip cannot be reconstructed by this reference; others, and other clips, may do."""


class SplitError(EmergeError):
    """The split of a dataset is broken, or what should be apart is shared."""


class DatasetError(EmergeError):
    """The folder is not the dataset that it should be, or a part of it is missing or damaged."""


class ComparisonError(EmergeError):
    """The prediction and the reference have nothing in common that could be compared."""


class SweepError(EmergeError):
    """The sweep cannot be made as it is asked, or its file is another's."""


class PluginError(EmergeError):
    """A plugin cannot be imported, or takes an id that exists; all else goes on without it."""


class Cancelled(EmergeError):
    """The caller asked to stop; nothing was stored for the unfinished step."""
