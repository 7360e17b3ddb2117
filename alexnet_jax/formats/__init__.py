"""Files of trained networks, ours and those of other programs."""
