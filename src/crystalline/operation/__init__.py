"""Looking after an installation: doctor."""
