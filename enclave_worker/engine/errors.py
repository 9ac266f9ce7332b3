"""What the engine refuses, as one small tree.

The engine imports no other package of this project, so it carries its own errors; the worker maps
`code` to what the caller sees. Messages say what was found and what was expected, never content.

    EngineError
    ├── EngineBusy          the waiting line is full: try again, or another worker
    ├── EngineStopped       submit before start() or after stop()
    ├── RequestInvalid      parameters or tokens that cannot be run
    │   ├── RequestTooLong  prompt + max_tokens exceed what the engine can hold
    │   └── SchemaInvalid   a schema, expression or grammar that is refused
    ├── KernelError         compiled kernels that are missing, wrong, or not for this processor
    ├── TemplateError       a chat template that is refused, or that refuses its messages
    └── ModelError          a model folder that is not one, or is not supported
        └── ModelConfigError   config.json asks for mathematics this engine does not do
"""


class EngineError(Exception):
    """Base of everything the engine raises on purpose; `code` is stable."""

    code = "engine"


class EngineBusy(EngineError):  # noqa: N818 - the name is part of the worker's interface
    """The waiting line is full."""

    code = "busy"


class EngineStopped(EngineError):  # noqa: N818 - states a fact, as EngineBusy does
    """The engine is not running, so nothing can be submitted."""

    code = "engine_stopped"


class RequestInvalid(EngineError):  # noqa: N818 - states a fact, as EngineBusy does
    """A request the engine cannot run as it is."""

    code = "request_invalid"


class RequestTooLong(RequestInvalid):
    """Prompt and requested completion together do not fit."""

    code = "request_too_long"


class SchemaInvalid(RequestInvalid):
    """A JSON schema, regular expression or grammar that cannot be used."""

    code = "schema_invalid"


class KernelError(EngineError):
    """The compiled kernels asked for cannot be used."""

    code = "kernel_unusable"


class TemplateError(EngineError):
    """The chat template is refused, or it refused the messages."""

    code = "template"


class ModelError(EngineError):
    """The model folder cannot be loaded."""

    code = "model_invalid"


class ModelConfigError(ModelError):
    """config.json asks for something that would change the mathematics and is not supported."""

    code = "model_unsupported"
