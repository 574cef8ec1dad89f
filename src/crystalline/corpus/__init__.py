"""From files to clean, traceable text: documents, cleaning, split, shards."""
