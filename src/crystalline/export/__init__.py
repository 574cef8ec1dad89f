"""Models for other programs and from them: Hugging Face folders, GGUF, one file; each checked by reading it back."""
