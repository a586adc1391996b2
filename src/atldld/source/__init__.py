"""Where bytes come from: the only rooms that touch network or disk."""
