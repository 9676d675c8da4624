"""Datasets of Minari: read as pairs, and written from them."""

from tscli.interop.minari.read import dataset_path, datasets_root, open_dataset
from tscli.interop.minari.write import make_known, write_dataset

__all__ = ["dataset_path", "datasets_root", "make_known", "open_dataset", "write_dataset"]
