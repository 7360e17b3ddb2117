"""Section 3 of the paper: the layers, the tower, and where towers run."""
