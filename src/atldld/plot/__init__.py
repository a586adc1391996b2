"""Pictures of sections on their reference axes."""
