"""What a trained network sees, in pictures and words: the sections of the page that `figures` writes."""
