"""cnnsens_bench: how often does a network's label change when the picture gets worse?"""

import os

# Unless told not to, MKL's matrix products round by how a row lies in memory, so by an image's place in its batch.
# It reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Unless told not to, albumentations asks PyPI for its latest version where it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
