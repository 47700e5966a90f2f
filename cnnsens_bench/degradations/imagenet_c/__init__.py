"""`common:<name>`: the fifteen corruptions of Hendrycks & Dietterich (ICLR 2019) at severities 1 to 5.

Formulas and parameters are those of the code that made ImageNet-C, lengths in pixels of the network's input (224
there). What differs is named where it does: pixels stay floating point (ImageNet-C is stored as JPEG at quality 85),
draws are seeded as all others here, one for all severities, and frost is a generated texture.
"""

from cnnsens_bench.degradations.imagenet_c import blur, digital, noise, weather

__all__ = ["blur", "digital", "noise", "weather"]
