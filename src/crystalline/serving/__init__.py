"""Models as a server that speaks OpenAI's language."""
