"""Evidence formats: bytes to typed, unverified values. No signature is checked here."""
