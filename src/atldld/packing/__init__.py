"""Packing a dataset into a bundle: what it needs, and writing it."""
