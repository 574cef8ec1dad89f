"""Corpus, cleaning: what is taken out of a document, and why; every rule and its figures, with their sources."""
