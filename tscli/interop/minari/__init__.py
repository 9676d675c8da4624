"""Datasets of Minari: read as pairs, and written from them."""
