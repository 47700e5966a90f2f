"""cnnsens_bench: how often does a network's label change when the picture gets worse?"""

__version__ = "0.1.0"
