"""The genome that ships with the package: Escherichia coli 536, complete, NC_008253.1, 4,938,920 bases, no N.

A public-domain GenBank record, embedded two bits a base in `ecoli_536.2bit` (1.2 MB);
`SOURCES.md`, beside this file, says where it was taken from and how to make it again.

Source: https://www.ncbi.nlm.nih.gov/nuccore/NC_008253.1
"""

from __future__ import annotations

from importlib.resources import files

from longwave.data.codes import Record
from longwave.data.twobit import parse_twobit

ACCESSION = "NC_008253.1"


def ecoli() -> Record:
    """The chromosome of E. coli 536.

    Returns:
        A record named "NC_008253.1" with 4,938,920 codes: (4938920,) uint8, 0…3, a fresh array on each call.
    """
    resource = files("longwave.data") / "ecoli_536.2bit"
    (record,) = parse_twobit(resource.read_bytes(), resource.name)
    return Record(ACCESSION, record.codes)
