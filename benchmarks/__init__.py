"""How fast and how frugal the package is, beside atldld 0.3.4 and a bare loop.

``python -m benchmarks`` measures and prints one table; ``docs/benchmarks.md`` explains it.
"""
