"""Images of a source as pixels: fetched together, decoded within a budget, failures noted."""
