"""From bytes and arrays to arrays: pixels onto grids. No network, no disk."""
