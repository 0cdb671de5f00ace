"""What a base is here: A C G T N are the uint8 codes 0 1 2 3 4, and a `Record` is a name with codes.

N (code 4, `UNKNOWN`) stands for everything that is not a known base, and is never predicted or counted.

Source: IUPAC-IUB nucleotide codes (Cornish-Bowden 1985).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longwave.errors import ArgumentError

Codes = npt.NDArray[np.uint8]

ALPHABET = "ACGTN"
UNKNOWN = ALPHABET.index("N")
AMBIGUOUS = "RYSWKMBDHVN-"
NOT_DNA = 0xFF
"""What `CODE_OF_BYTE` gives for a byte that is not a DNA letter."""


def _code_table() -> bytes:
    meaning = {"A": 0, "C": 1, "G": 2, "T": 3, "U": 3} | dict.fromkeys(AMBIGUOUS, UNKNOWN)
    table = bytearray([NOT_DNA] * 256)
    for letter, code in meaning.items():
        table[ord(letter)] = table[ord(letter.lower())] = code
    return bytes(table)


CODE_OF_BYTE = _code_table()
_BYTE_OF_CODE = ALPHABET.encode("ascii").ljust(256, b"?")


_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Record:
    """One sequence of DNA.

    Attributes:
        name: the first word of its header.
        codes: (n,) uint8, 0…4 = A C G T N, n ≥ 1.
    """

    name: str
    codes: Codes


def check_codes(codes: Codes) -> Codes:
    """Return `codes` if they are codes.

    Args:
        codes: (n,) uint8, values 0…4, n ≥ 0.

    Returns:
        The same array.

    Raises:
        ArgumentError: not an array of that shape, dtype and range.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8 or codes.ndim != 1:
        given = f"{codes.dtype} {codes.shape}" if isinstance(codes, np.ndarray) else type(codes).__name__
        raise ArgumentError(
            f"DNA codes must be a one-dimensional uint8 NumPy array, and {given} was given; make them with `encode`"
        )
    if codes.size and (largest := int(codes.max())) > UNKNOWN:
        raise ArgumentError(f"DNA codes are 0 to 4 (A C G T N), and {largest} was given; make them with `encode`")
    return codes


def encode(text: str) -> Codes:
    """Turn letters into codes: both cases, U as T, ambiguity codes and '-' as N; blanks are not letters.

    Args:
        text: n letters.

    Returns:
        (n,) uint8, 0…4 = A C G T N.

    Raises:
        ArgumentError: a character is not a DNA letter.
    """
    codes = text.encode("latin-1", errors="replace").translate(CODE_OF_BYTE)
    if (index := codes.find(NOT_DNA)) >= 0:
        raise ArgumentError(
            f"{text[index]!r} at index {index} is not a DNA letter; A C G T U and the ambiguity codes {AMBIGUOUS} are"
        )
    return np.frombuffer(bytearray(codes), dtype=np.uint8)


def decode(codes: Codes) -> str:
    """Turn codes into letters.

    Args:
        codes: (n,) uint8, 0…4.

    Returns:
        n letters of "ACGTN".

    Raises:
        ArgumentError: not codes.
    """
    return check_codes(codes).tobytes().translate(_BYTE_OF_CODE).decode("ascii")


def reverse_complement(codes: Codes) -> Codes:
    """The other strand, read in its own direction.

    Args:
        codes: (..., n) uint8, 0…4 = A C G T N.

    Returns:
        A new array of that shape: A and T, C and G exchanged, in reverse order.
    """
    return _COMPLEMENT[codes[..., ::-1]]


def unknown_runs(codes: Codes) -> npt.NDArray[np.int64]:
    """Find the runs of N.

    Args:
        codes: (n,) uint8, 0…4 = A C G T N.

    Returns:
        (runs, 2) int64: first index and end (exclusive) of each maximal run of N, ascending.

    Raises:
        ArgumentError: not codes.
    """
    is_unknown = (check_codes(codes) == UNKNOWN).view(np.int8)
    steps = np.diff(is_unknown, prepend=np.int8(0), append=np.int8(0))
    return np.flatnonzero(steps).astype(np.int64).reshape(-1, 2)
