"""Numerical kernels that several degradations share. They register nothing."""
