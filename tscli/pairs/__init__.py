"""Paired datasets: their format on disk, who writes and who reads it, and windows over them.

An action and what the teacher would have done stand beside every observation. `schema` says what a row means, `folder`
what a dataset consists of, `shard`, `tables` and `sealed` what its files hold; `writer` fills one through `live` and
`hdf5`, `reader` opens it and reads `rows` of `windows`.
"""

from tscli.pairs.folder import find_pairs, pairs_folder
from tscli.pairs.reader import Pairs
from tscli.pairs.schema import PairsSchema
from tscli.pairs.sealed import PairsError
from tscli.pairs.writer import PairsWriter

__all__ = ["Pairs", "PairsError", "PairsSchema", "PairsWriter", "find_pairs", "pairs_folder"]
