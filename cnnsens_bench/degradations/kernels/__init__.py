"""Numerical building blocks that several degradations share. No degradation is registered here."""
