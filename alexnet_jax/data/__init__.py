"""The data: images, crops and flips, the mean image and colour noise (paper sections 2 and 4.1)."""
