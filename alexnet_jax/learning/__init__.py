"""Section 5 of the paper: the update, the step, what is measured and what is kept."""
