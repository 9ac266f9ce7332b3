"""Thousands of mixed requests on a real engine: nothing may leak, hang or differ when run again."""
