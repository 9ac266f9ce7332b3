"""Model architectures, one readable file each, driven by config.json and never by code in it."""
