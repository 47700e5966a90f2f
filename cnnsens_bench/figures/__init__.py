"""Figures and tables. `catalogue.py` names those that are drawn from a store."""
