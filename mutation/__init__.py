"""Do the tests notice when the code is wrong? Small faults, one at a time, and who saw them.

A mutant is a module with one small fault. It is killed if a test that executes the faulty line
fails, or does not end; otherwise it survives, and either a test is missing or the fault changes
nothing anyone can see. This package must never write to the tree it judges, and never call a mutant
killed because something other than a test's verdict went wrong.
"""

__all__: list[str] = []
