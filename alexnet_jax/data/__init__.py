"""Sections 2 and 4.1 of the paper: the images, their crops and flips, their mean and their colour noise."""
