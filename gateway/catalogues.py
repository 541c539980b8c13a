"""The languages that texts for recipients can be in: gettext catalogues beside the code that says them.

``locale/LANGUAGE/LC_MESSAGES/*.po`` in a package, read as they are: there is nothing to compile. English stands in the
templates and the code. For a new language ``pybabel extract -F babel.cfg -k translate -o messages.pot .`` collects what
is to be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO

from babel import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

__all__ = ["SOURCE", "catalogue_for", "catalogues"]

#: The language of the texts in templates and code.
SOURCE = "en"


def catalogues(packages: Sequence[str]) -> dict[str, NullTranslations]:
    """What these packages can say, by language tag; always in English."""
    found: dict[str, NullTranslations] = {SOURCE: NullTranslations()}
    for package in packages:
        folder = files(package) / "locale"
        if not folder.is_dir():
            continue
        for language in folder.iterdir():
            messages = language / "LC_MESSAGES"
            if not messages.is_dir():
                continue
            tag = language.name.replace("_", "-")
            for each in messages.iterdir():
                if each.name.endswith(".po"):
                    compiled = BytesIO()
                    write_mo(compiled, read_po(BytesIO(each.read_bytes()), locale=language.name))
                    compiled.seek(0)
                    known = found.setdefault(tag, Translations())
                    assert isinstance(known, Translations), "English stands in the templates"
                    known.merge(Translations(compiled))
    return found


@cache
def catalogue_for(language: str, package: str) -> tuple[str, NullTranslations]:
    """The best that a package has for a language tag, and which that is."""
    known = catalogues([package])
    tag = negotiate_locale([language], list(known), sep="-") or SOURCE
    return tag, known[tag]
