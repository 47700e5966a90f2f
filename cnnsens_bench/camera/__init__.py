"""Measures what a camera does to its photographs, in the units of the degradations' levels.

`report.py` has the result and reads its file, without torch or OpenCV. The other modules measure.
"""
