"""A phantom brain, and a server that speaks the Allen API."""
