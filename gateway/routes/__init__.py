"""The HTTP routes, one noun a module. They never hold state: everything is in `Gateway`."""
