"""Users of SMTP AUTH: a file with a name and an Argon2id hash of the password on each line, and how a hash is made.

Names and passwords are compared in Unicode normal form C, passwords with every kind of blank as a plain one
(RFC 8265 sections 3.4 and 4.2).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from argon2 import PasswordHasher
from pydantic import PlainValidator, ValidationInfo

from gateway.config.source import Node, read_document
from gateway.config.written import surroundings_of, text_of
from gateway.errors import Fault

__all__ = ["UserTable", "Users", "is_user_name", "make_hash", "normal_name", "normal_password"]

# OWASP's recommendation: a verification takes 19 MiB and some 20 ms.
_MEMORY, _TIME, _LANES = 19456, 2, 1
#: Beyond these a stranger could make us work for too long; below these a stolen file is soon guessed. KiB, passes.
_MOST_MEMORY, _MOST_TIME, _MOST_LANES = 131072, 10, 16
_LEAST_MEMORY = 7168
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$[A-Za-z0-9+/]{11,86}\$([A-Za-z0-9+/]{22,86})\Z"
)
_NAME_LIMIT = 255  # RFC 4616 section 2


@dataclass(frozen=True, slots=True)
class UserTable:
    """The users of one file, as it was when it was read, without the lines that ``faults`` speaks of."""

    path: Path
    hashes: Mapping[str, str] = field(repr=False)
    faults: tuple[Fault, ...] = ()

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def costliest(self) -> str:
        """The hash that takes longest to verify; "" where there is none."""
        return max(self.hashes.values(), key=_cost, default="")

    @classmethod
    def read(cls, path: Path) -> UserTable:
        """The table in a file."""
        document = read_document(path)
        faults = list(document.faults)
        hashes: dict[str, str] = {}
        if not faults and not document.root.mapping:
            faults.append(document.fault((), 'expected lines such as name: "$argon2id$..."; see `gateway auth hash`'))
        for name, node in (document.root.mapping or {}).items():
            problem = _name_problem(name)
            if problem:
                faults.append(document.key_fault((name,), problem))
            elif problem := _hash_problem(node):
                faults.append(document.fault((name,), problem))
            elif normal_name(name) in hashes:
                faults.append(document.key_fault((name,), f"the user {name!r} is given twice"))
            else:
                hashes[normal_name(name)] = str(node.scalar)
        return cls(path, hashes, tuple(faults))


def _cost(text: str) -> int:
    match = _HASH.match(text)
    return 0 if match is None else int(match[1]) * int(match[2])


def _name_problem(name: str) -> str:
    if is_user_name(name):
        return ""
    return f"a user's name is at most {_NAME_LIMIT} bytes of printable characters without a blank at either end"


def _hash_problem(node: Node) -> str:
    # A value that is no hash is not repeated: someone may have written the password itself.
    match = _HASH.match(node.scalar) if isinstance(node.scalar, str) else None
    if match is None:
        return "expected an Argon2id hash in quotes, as `gateway auth hash` prints it"
    memory, time, lanes = (int(match[number]) for number in (1, 2, 3))
    if memory > _MOST_MEMORY or time > _MOST_TIME or lanes > _MOST_LANES:
        return f"this hash is too costly to verify: at most m={_MOST_MEMORY}, t={_MOST_TIME}, p={_MOST_LANES}"
    if memory < _LEAST_MEMORY or memory < 8 * lanes:
        return f"this hash is too weak: at least m={_LEAST_MEMORY}"
    return ""


def is_user_name(name: str) -> bool:
    """Whether someone can be called so."""
    return (
        bool(name)
        and name.isprintable()
        and name == name.strip()
        and len(normal_name(name).encode("utf-8", "surrogatepass")) <= _NAME_LIMIT
    )


def normal_name(name: str) -> str:
    """The form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def normal_password(password: str) -> bytes:
    """The form in which passwords are hashed."""
    blanks = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", blanks).encode("utf-8", "surrogatepass")


def make_hash(password: str) -> str:
    """A fresh hash of a password, for a line of the file."""
    return PasswordHasher(_TIME, _MEMORY, _LANES).hash(normal_password(password))


def _users(value: object, info: ValidationInfo) -> UserTable | None:
    if value is None or isinstance(value, UserTable):
        return value
    text = str(value) if isinstance(value, Path) else text_of(value, "a path")
    if "\0" in text:
        raise ValueError("expected a path, found one with a NUL in it")
    return UserTable.read(surroundings_of(info).base / text.removeprefix("file:"))


Users = Annotated[UserTable | None, PlainValidator(_users)]
"""A file of users; what is wrong in it stands in its ``faults``, with places of its own."""
