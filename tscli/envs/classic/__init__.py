"""Small environments of a few numbers each, native and batched."""
