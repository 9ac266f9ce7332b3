"""The arithmetic: a plain torch reference of every operation, and the kernels that replace it."""
