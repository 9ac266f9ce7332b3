"""The tenant's side: verify, seal, send, open, check the receipt.

`client` turns an OpenAI request into a sealed exchange with a worker whose evidence the tenant's
own policy accepted, and turns the sealed answer back. It must never send a prompt in the clear,
never accept an answer that is not authenticated to its end, and never trust a key, an error or a
list of workers because the gateway says so. Everything that decides is a generator without I/O; two
thin drivers (sync and async) perform the I/O it asks for. Spec: docs/spec/sealed-protocol.md.
"""
