"""The policy language as a JSON Schema (draft 2020-12), with descriptions: what an editor shows while one writes.

It is looser than the language where a schema cannot say it (what patterns are valid, which names exist): ``gateway
check`` is the judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.mail.content import FileType
from gateway.mail.envelope import Kind
from gateway.mail.protection import Assurance, Disposition, Method
from gateway.policy.about_envelope import DAYS
from gateway.policy.detect import BUILT_IN

__all__ = ["policy_schema"]

_Schema = dict[str, Any]

_DURATION: _Schema = {"type": "string", "pattern": "^[0-9.]+(ms|s|m|h|d|w)$", "examples": ["90s", "15m", "4h", "5d"]}
_SIZE: _Schema = {"type": "string", "pattern": "^[0-9.]+ ?[A-Za-z]+$", "examples": ["25MB", "64KiB"]}
_COUNT: _Schema = {"type": "integer", "minimum": 0}
_TEXT: _Schema = {"type": "string", "minLength": 1}


def _said(description: str, schema: _Schema) -> _Schema:
    return {"description": description, **schema}


def _one_or_more(item: _Schema) -> _Schema:
    return {"oneOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _mapping(required: Iterable[str] = (), **properties: _Schema) -> _Schema:
    named = {name.rstrip("_"): schema for name, schema in properties.items()}
    schema: _Schema = {"type": "object", "properties": named, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _of(names: Iterable[object], *more: str) -> _Schema:
    return {"enum": [*map(str, names), *more]}


def _bounds(number: _Schema) -> _Schema:
    bounds = _mapping(over=_said("More than this.", number), under=_said("Less than this.", number))
    return {**bounds, "minProperties": 1}


_ADDRESSES = _said(
    "Addresses or patterns: user@dom, *@dom, dom, *.dom, *, <> for the null sender, group:NAME.", _one_or_more(_TEXT)
)
_METHODS = _said("Methods of protection.", _one_or_more(_of(Method)))
_PROTECTING = _said(
    "Methods that protect: never plain.", _one_or_more(_of(method for method in Method if method is not Method.PLAIN))
)
_LEVEL = _said("What the TLS session must show.", _of(Assurance))
_WHEN: _Schema = {"description": "When it applies.", "$ref": "#/$defs/condition"}


def _subject() -> _Schema:
    return _mapping(
        contains=_said("The subject contains one of these texts; case and width do not matter.", _one_or_more(_TEXT)),
        matches=_said("One of these patterns (RE2) is found in the subject.", _one_or_more(_TEXT)),
        tag=_said("The subject carries [tag], (tag) or tag:, in any case.", _one_or_more(_TEXT)),
        tag_typo=_said("The subject carries what is almost the tag, such as [secrue].", _one_or_more(_TEXT)),
    )


def _header() -> _Schema:
    return _mapping(
        ["name"],
        name=_said("The name of a header field.", _TEXT),
        exists=_said("Whether there is such a field; true where nothing else is asked.", {"type": "boolean"}),
        contains=_said("Such a field contains one of these texts.", _one_or_more(_TEXT)),
        matches=_said("One of these patterns (RE2) is found in such a field.", _one_or_more(_TEXT)),
    )


def _time() -> _Schema:
    return _mapping(
        between=_said('Hours such as "18:00-07:00", which may run over midnight.', {"type": "string"}),
        days=_said("Days; a time over midnight belongs to the day it begins on.", _one_or_more(_of(DAYS))),
        zone=_said("A time zone such as Europe/Berlin; default UTC.", {"type": "string"}),
    )


def _attachment() -> _Schema:
    return _mapping(
        type=_said("Types by content, not by name.", _one_or_more(_of(FileType))),
        name=_said("File names, or patterns with * and ?; case does not matter.", _one_or_more(_TEXT)),
        size=_said("Octets of the attachment as decoded.", _bounds(_SIZE)),
        encrypted=_said("Whether it needs a password to be opened.", {"type": "boolean"}),
        count=_said(
            "More than so many attachments are all of this.", _mapping(["over"], over=_said("More than this.", _COUNT))
        ),
    )


def _content(detectors: _Schema) -> _Schema:
    return _mapping(
        contains=_said("Subject, body or a text attachment contains one of these texts.", _one_or_more(_TEXT)),
        matches=_said(
            "One of these patterns (RE2) is found in subject, body or a text attachment.", _one_or_more(_TEXT)
        ),
        detects=_said("Detectors: built in, or of the section `detectors`.", _one_or_more(detectors)),
        at_least=_said(
            "How many different finds the detectors must make together; default 1.", {"type": "integer", "minimum": 1}
        ),
        unreadable=_said("Whether something in the message could not be read.", {"type": "boolean"}),
    )


def _condition() -> _Schema:
    again: _Schema = {"$ref": "#/$defs/condition"}
    detectors: _Schema = {"anyOf": [_of(sorted(BUILT_IN)), _TEXT]}
    several: _Schema = {"type": "array", "items": again, "minItems": 1}
    schema = _mapping(
        all=_said("Every one of these holds.", several),
        any=_said("At least one of these holds.", several),
        not_=_said("This does not hold.", again),
        sender=_said("The envelope sender.", _ADDRESSES),
        from_=_said("The mailbox in From.", _ADDRESSES),
        recipient=_said("The envelope recipient.", _ADDRESSES),
        recipient_domain=_said("The domain of the envelope recipient: dom, *.dom, *.", _one_or_more(_TEXT)),
        group=_said("The recipient is in one of these groups.", _one_or_more(_TEXT)),
        connector=_said("The connector that the message came in by.", _one_or_more(_TEXT)),
        kind=_said("The kind of mail.", _one_or_more(_of(Kind))),
        subject=_said("The subject.", _subject()),
        header=_said("A header field.", _header()),
        sensitivity_label=_said("Labels of Microsoft Purview, by GUID or by name.", _one_or_more(_TEXT)),
        size=_said("Octets of the message.", _bounds(_SIZE)),
        recipient_count=_said("How many recipients the envelope has.", _bounds(_COUNT)),
        time=_said("When the message is judged.", _time()),
        encrypted_already=_said(
            "The message is protected already.",
            {"anyOf": [{"type": "boolean"}, _one_or_more(_of(("smime", "pgp", "pdf")))]},
        ),
        attachment=_said("Attachments that are all of this.", _attachment()),
        content=_said("What subject, body and text attachments hold.", _content(detectors)),
    )
    return {**schema, "minProperties": 1, "description": "Several keys mean all of them."}


def _actions() -> _Schema:
    footer = _mapping(
        ["text"],
        text=_said("What the plain text gets.", _TEXT),
        html=_said("What the HTML gets; made from the text unless given.", _TEXT),
    )
    action = _mapping(
        strip_tag=_said("Take these tags out of the subject.", _one_or_more(_TEXT)),
        add_header=_said("Add header fields: names and values.", {"type": "object", "additionalProperties": _TEXT}),
        remove_header=_said("Remove the header fields of these names.", _one_or_more(_TEXT)),
        prepend_subject=_said("Put this before the subject.", _TEXT),
        replace_subject=_said("Make this the subject.", _TEXT),
        footer=_said("Append this to the body.", {"anyOf": [_TEXT, footer]}),
        copy_to=_said("Send the message to these addresses, too.", _one_or_more(_TEXT)),
        notify=_said("Tell these addresses that the rule matched, without content.", _one_or_more(_TEXT)),
    )
    return {"type": "array", "items": {**action, "minProperties": 1}, "minItems": 1}


def _rule() -> _Schema:
    hold = _mapping(
        for_=_said("What the message waits for.", _TEXT), expires=_said("After this it bounces.", _DURATION)
    )
    return {
        **_mapping(
            ["name", "when"],
            name=_said("Logs and traces speak of the rule by this name.", {"type": "string", "maxLength": 64}),
            when=_WHEN,
            require=_said(
                "Narrow the methods to these, and ask for at least this TLS assurance.",
                {**_mapping(methods=_PROTECTING, tls=_LEVEL), "minProperties": 1},
            ),
            allow=_said(
                "Add these methods to the defaults; a require still cuts them.", _mapping(["methods"], methods=_METHODS)
            ),
            hold=_said("Hold the message until somebody releases it.", {"anyOf": [{"const": True}, _TEXT, hold]}),
            reject=_said("Refuse the message with this text (ASCII, one line).", {"type": "string", "maxLength": 200}),
            do=_said("Change the message, copy it, notify somebody.", _actions()),
            unknown=_said(
                "`ignore`: where the condition cannot be known, the rule does not apply.", {"const": "ignore"}
            ),
        ),
        "anyOf": [{"required": [outcome]} for outcome in ("require", "allow", "hold", "reject", "do")],
    }


def _exception() -> _Schema:
    return _mapping(
        ["rules", "tls", "owner", "reason", "until"],
        to=_said("Recipients.", _ADDRESSES),
        sender=_said("Envelope senders.", _ADDRESSES),
        when=_WHEN,
        rules=_said("The rules that it lowers.", _one_or_more(_TEXT)),
        tls=_said("What takes the place of their `tls`.", _of(level for level in Assurance if level)),
        methods={**_PROTECTING, "description": "Methods that it adds to theirs; never plain."},
        owner=_said("Who answers for it.", _TEXT),
        reason=_said("Why it is.", _TEXT),
        until=_said("Its last day (UTC), such as 2026-12-31.", {"type": "string", "format": "date"}),
    )


def _test() -> _Schema:
    text: _Schema = {"type": "string"}
    attachment = _mapping(
        name=_said("Its name.", text), text=_said("Its text.", text), file=_said("A file beside this one.", text)
    )
    message = _mapping(
        from_=_said("The mailbox in From, and the envelope sender.", _TEXT),
        sender=_said("Another envelope sender; <> for none.", _TEXT),
        to=_said("Recipients.", _one_or_more(_TEXT)),
        subject=_said("The subject.", text),
        body=_said("The text of the message.", text),
        html=_said("The same as HTML.", text),
        headers=_said("Further header fields.", {"type": "object", "additionalProperties": text}),
        attachments=_said("Text, or files.", {"type": "array", "items": attachment, "minItems": 1}),
        eml=_said("A file with the whole message, instead of the above.", text),
        connector=_said("The connector that it comes by.", text),
        time=_said("When it comes, such as 2026-12-24T18:30+01:00.", text),
    )
    able = _mapping(
        tls={**_LEVEL, "description": "The TLS assurance that the recipient's hosts reach; none: no TLS."},
        smime=_said("Whether the recipient has a certificate.", {"type": "boolean"}),
        pgp=_said("Whether the recipient has an OpenPGP key.", {"type": "boolean"}),
        pdf=_said("Whether a password for PDF is agreed with the recipient.", {"type": "boolean"}),
    )
    expect = _mapping(
        method=_said("The method that is chosen.", _of(Method)),
        disposition=_said("What happens to it.", _of(Disposition)),
        tls={**_LEVEL, "description": "The TLS assurance that is asked for."},
        methods={**_METHODS, "description": "The methods that are allowed, exactly."},
        rules=_said("Rules that match, among others.", _one_or_more(_TEXT)),
        no_rules=_said("Rules that do not match.", _one_or_more(_TEXT)),
        actions=_said(
            "The kinds of action that are done, exactly; [] for none.",
            {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        ),
    )
    return _mapping(
        ["name", "message", "expect"],
        name=_said("What it shows, in words.", _TEXT),
        message=_said("The message.", message),
        recipient=_said("What the recipient can take; by default TLS of the highest level, and no keys.", able),
        expect=_said("What must become of it.", {**expect, "minProperties": 1}),
    )


def policy_schema() -> _Schema:
    """The schema of one policy file."""
    detector = _mapping(
        ["pattern"],
        pattern=_said("What it looks for (RE2 syntax).", _TEXT),
        near=_said(
            "Words of which one must stand nearby, within so many characters.",
            _mapping(
                ["words"],
                words=_said("The words; case does not matter.", _one_or_more(_TEXT)),
                within=_said("How many characters; default 60.", {"type": "integer", "minimum": 1}),
            ),
        ),
        at_least=_said("How many different finds it needs to count.", {"type": "integer", "minimum": 1}),
    )
    protection = _mapping(
        methods={**_METHODS, "description": "The methods that mail may take unless a rule says otherwise."},
        tls=_said("The TLS assurance that method tls must reach.", _of(level for level in Assurance if level)),
        prefer={**_METHODS, "description": "The one ranking among what is allowed and possible."},
        fallback_after=_said("How long a method may fail for now before the next one is tried.", _DURATION),
    )
    whole = _mapping(
        ["version"],
        version=_said("The version of the language.", {"const": 1}),
        groups=_said(
            "Named sets of addresses: patterns, or file:PATH with one on each line.",
            {"type": "object", "additionalProperties": _one_or_more(_TEXT)},
        ),
        detectors=_said("Detectors of your own.", {"type": "object", "additionalProperties": detector}),
        protection=_said("The defaults. They stand in one file only.", protection),
        rules=_said(
            "All rules that match apply; the strictest wins; order means nothing.", {"type": "array", "items": _rule()}
        ),
        exceptions=_said(
            "The only way below a require: with owner, reason and end.", {"type": "array", "items": _exception()}
        ),
        invariants=_said(
            "What must hold for every possible message; without effect in this version.", {"type": "array"}
        ),
        tests=_said("Messages, and what policy must make of them.", {"type": "array", "items": _test()}),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of the secure email gateway",
        **whole,
        "$defs": {"condition": _condition()},
    }
