"""Files of networks that other programs read and write, a layout a file; `imported` reads all that can be read."""
