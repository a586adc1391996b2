"""Where files are kept: the cache, and the bundles that are made of it. Knows no service."""
