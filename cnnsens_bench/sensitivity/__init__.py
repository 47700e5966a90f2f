"""Sensitivity: what one image tells about how its prediction will bear noise (paper, sections 3 and 4)."""
