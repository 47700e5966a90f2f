"""`common:<name>`: the fifteen corruptions of Hendrycks & Dietterich (ICLR 2019) at severities 1 to 5.

Formulas and parameters are those of the code that made ImageNet-C. Lengths are in pixels of the network's input, which
has a side of 224 there. Three things differ: pixels stay floating point (ImageNet-C is stored as JPEG at quality 85,
which a run does with `stored_quality=85`), the draws are seeded like all others of this package, one for all
severities, and frost is a generated texture, unless a run has `frost=photographs`.
"""
