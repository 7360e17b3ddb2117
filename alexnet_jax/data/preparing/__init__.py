"""Making a data set."""
