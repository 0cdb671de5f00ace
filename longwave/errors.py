"""The errors longwave raises: one sentence each, saying what was asked, what was given, what is allowed and what to do."""

from __future__ import annotations


class LongwaveError(Exception):
    """Base of every error that is the caller's to mend.

    Attributes:
        everywhere: whether every rank of a mesh raises it, so that rank 0 alone need print it.
        said: whether another rank, which met the failure first, prints it.
    """

    everywhere = False
    said = False


class ArgumentError(LongwaveError, ValueError):
    """An argument has the wrong shape, dtype, device or value, or excludes another."""


class UnsupportedError(LongwaveError, NotImplementedError):
    """The call is well formed, but the backend that was named cannot run it."""


class MissingDependencyError(LongwaveError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class DataError(LongwaveError, ValueError):
    """A file is not what it should be: empty, cut off, of another format, or of another model."""


class RankError(LongwaveError, RuntimeError):
    """Another rank of a mesh has ended, or did not answer in time."""
