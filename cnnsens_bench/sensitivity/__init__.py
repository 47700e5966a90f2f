"""Sensitivity: how strongly noise will change the prediction of one image (paper, sections 3 and 4)."""
