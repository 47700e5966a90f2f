"""Submissions: results as a folder that others can check and take into their database."""
