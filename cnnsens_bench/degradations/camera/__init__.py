"""Degradations by cheap cameras: their sensors, lenses, shutters and white balance."""
