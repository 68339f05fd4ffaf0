"""maskfix."""
