"""Numbers: Allen's own grids, structures, points."""
