"""Paired datasets: their format on disk, writing, reading, and windows.

What a row means is in `schema`, what the files hold in `folder`, `shard`, `tables` and `sealed`; `writer` fills them
through `live` and `hdf5`, with whole episodes alone where a `selection` stands before it; `reader` reads `rows` of
`windows`.
"""

from tscli.pairs.folder import find_pairs, pairs_folder
from tscli.pairs.reader import Pairs
from tscli.pairs.schema import PairsSchema
from tscli.pairs.sealed import PairsError
from tscli.pairs.selection import Selection
from tscli.pairs.writer import PairsWriter

__all__ = ["Pairs", "PairsError", "PairsSchema", "PairsWriter", "Selection", "find_pairs", "pairs_folder"]
