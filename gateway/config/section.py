"""The base of every section of the settings."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """A mapping in the configuration file: immutable, and a key that it does not know is a fault.

    The docstring under each field is its documentation: the reference and the sample are made from it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # a fault must never print a secret
    )
