"""Paired datasets: their format on disk, writing, reading, windows, and Minari's."""

from tscli.pairs.format import PairsSchema
from tscli.pairs.reader import Pairs, pairs_folder

__all__ = ["Pairs", "PairsSchema", "pairs_folder"]
