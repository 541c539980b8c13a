"""Pages from templates: escaped, strict about what is not given, in the reader's language.

Templates are our own files, in the folder ``templates`` of a package. Texts stand in them in English, in
``{% trans %}`` or ``_()``; their languages are those of ``gateway.catalogues``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from babel import Locale, UnknownLocaleError, negotiate_locale
from babel.support import NullTranslations
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from gateway.catalogues import SOURCE, catalogues

__all__ = ["Language", "Pages"]

#: Characters of Accept-Language, and languages in it, that are looked at.
_MOST_TEXT, _MOST_LANGUAGES = 500, 20


class Language:
    """A language that pages can be made in."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.locale = Locale.parse(tag, sep="-")
        #: ``ltr`` or ``rtl``, for the attribute ``dir``.
        self.direction: str = self.locale.text_direction


class Pages:
    """The templates of some packages; one of a later package stands for one of the same name in an earlier one."""

    def __init__(self, packages: Sequence[str]) -> None:
        loader = ChoiceLoader([PackageLoader(package) for package in reversed(packages)])
        self._catalogues = catalogues(packages)
        self._languages = {tag: Language(tag) for tag in self._catalogues}
        self._environments = {tag: _environment(loader, found) for tag, found in self._catalogues.items()}

    @property
    def languages(self) -> list[str]:
        """The tags of all languages."""
        return list(self._languages)

    def language(self, accept: str, *, chosen: str | None = None) -> Language:
        """The best for a browser's ``Accept-Language`` (RFC 9110 section 12.5.4); ``chosen`` goes before it."""
        wanted = [chosen, *_accepted(accept)] if chosen else _accepted(accept)
        found = negotiate_locale(wanted, self.languages, sep="-") if wanted else None
        return self._languages[found or SOURCE]

    def render(self, template: str, language: Language, **values: Any) -> str:
        """The text of a page. Raises jinja2's errors where the template wants what is not given: a fault of ours."""
        page = self._environments[language.tag].get_template(template)
        return page.render(language=language, **values)

    def translate(self, text: str, language: Language) -> str:
        """One text that stands outside templates."""
        return self._catalogues[language.tag].gettext(text)


def _environment(loader: ChoiceLoader, translations: NullTranslations) -> Environment:
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]  # i18n adds it
    return environment


def _accepted(accept: str) -> list[str]:
    """The tags of Accept-Language, best first; what cannot be read is left out."""
    weighed: list[tuple[float, str]] = []
    for each in accept[:_MOST_TEXT].split(",")[:_MOST_LANGUAGES]:
        tag, _, rest = each.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=")) if rest.strip() else 1.0
            Locale.parse(tag, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
        if 0 < weight <= 1:
            weighed.append((weight, tag))
    return [tag for _, tag in sorted(weighed, key=lambda pair: -pair[0])]
