"""The inference engine: continuous batching over paged keys and values, in one torch thread.

It takes token ids and gives back text, and knows nothing of sealing, tenants' names, sockets or
files once it is warm: after `Engine.warm_up` no file is opened and no thread or process is made, so
the worker can put the process under seccomp. It must never import another package of this project,
never load code or pickles from a model folder, and never put content into an error or a log line.
Import from the modules: `engine`, `config`, `params`, `sequence`, `events`, `templates`, `errors`.
"""
