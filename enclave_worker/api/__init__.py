"""The HTTP APIs inside the sealed envelope: five shapes in, one request form out, and back.

Each endpoint has a module that reads its bodies and one that writes its replies; what a body asks
for that cannot be done exactly as asked is refused by name. Nothing here runs a model, and nothing
here sends: errors and replies leave sealed to the caller only. Fields: docs/spec/api.md.
"""
