"""Sources of images; each module makes listings of one kind of source."""
