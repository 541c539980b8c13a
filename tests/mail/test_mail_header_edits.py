"""Header edits: what was asked is done, and every other octet stays where it was."""

from __future__ import annotations

import email
import email.policy
from base64 import b64encode

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.edits import Edits, Footer
from gateway.mail.edits.encoded_words import encode_words, fold_field, text_of
from gateway.mail.edits.header import edit_header
from gateway.mail.edits.signatures import without_broken
from gateway.mail.edits.subject_tags import without_tags
from gateway.mail.headers import Field, decode_text, fields
from gateway.policy.about_header import SubjectTag
from gateway.policy.facts import MessageFacts

SECURE = Edits(strip_tags=frozenset({"secure"}))
BLOCK = (
    b"Received: from a by b;\r\n\tMon, 5 Jan 2026 10:00:00 +0000\r\nFrom: Dr <dr@clinic.example>\r\nX-A: 1\r\n"
    b"sUbJeCt:  odd\t spacing \r\n\t kept \r\nx-a : 2\r\nTo: pat@good.example\r\n"
)


def stripped(subject: str | bytes, *tags: str) -> str:
    """The value of the subject after the tags were taken out, folds shown."""
    raw = subject if isinstance(subject, bytes) else subject.encode()
    block = edit_header(b"Subject: " + raw + b"\r\n", Edits(strip_tags=frozenset(tags or ("secure",)))).block
    return block.removeprefix(b"Subject: ").removesuffix(b"\r\n").decode("utf-8", "surrogateescape")


# -- taking tags out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[secure] Results", "Results"),
        ("[SeCuRe] Results", "Results"),
        ("(secure) Results", "Results"),
        ("secure: Results", "Results"),
        ("Results [secure]", "Results"),
        ("Results [ secure ] again", "Results again"),
        ("Re: [secure] x", "Re: x"),
        ("Re:[secure] x", "Re: x"),
        ("Re: secure: x", "Re: x"),
        ("[secure][secure] twice", "twice"),
        ("[secure] (secure) secure: all", "all"),
        ("[sec[secure]ure] nested", "nested"),
        ("[secure]", ""),
        ("x[secure]y", "xy"),
        ("insecure: stays", "insecure: stays"),
        ("un-secure: stays", "un-secure: stays"),
        ("secure stays", "secure stays"),
        ("[secured] stays", "[secured] stays"),
        ("[se\u200bcure] zero width", "zero width"),
        ("［ｓｅｃｕｒｅ］ full width", "full width"),
        ("[sec\u00adure] soft hyphen Ü", "soft hyphen Ü"),
        ("a \r\n [secure]\r\n b", "a \r\n b"),
        ("a\r\n [secure]", "a"),
        ("[secure]\r\n  odd   spacing\tstays ", "odd   spacing\tstays "),
        ("a  b [secure]  c  d", "a  b c  d"),
        ("a [secure][secure] (secure) b", "a b"),
        ("[secure] =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="),
        ("=?utf-8?q?[secure]_Gr=C3=BC=C3=9Fe?=", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="),
        ("=?UTF-8?B?W3NlY3VyZV0gR3LDvMOfZQ==?=", "=?UTF-8?b?R3LDvMOfZQ==?="),
        ("=?iso-8859-1?q?Gr=FC=DFe_[secure]?= + =?utf-8?q?=C3=B6?=", "=?iso-8859-1?q?Gr=FC=DFe?= + =?utf-8?q?=C3=B6?="),
        ("=?utf-8?q?[sec?=\r\n =?utf-8?q?ure]_x?= y", "=?utf-8?q?x?= y"),
        ("Re: [sec=?utf-8?q?ure]?= x", "Re: x"),
        ("=?utf-8?q?A?= [secure] =?utf-8?q?B?=", "A B"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=9F?= [secure]", "=?utf-8?q?=C3?= =?utf-8?q?=9F?="),
        ("=?x-unknown?q?=FF=FE?= [secure] x", "=?x-unknown?q?=FF=FE?= x"),
        ("=?x-unknown?q?[secure]_=FF=FE?= x", "=?x-unknown?q?=FF=FE?= x"),
    ],
)  # fmt: skip
def test_a_tag_goes_and_the_rest_stays_as_it_was(before: str, after: str) -> None:
    assert stripped(before) == after


def test_the_whole_field_is_found_whatever_its_spelling() -> None:
    block = b"X: 1\r\nsubject :\t[secure]  x\r\nSUBJECT: (secure)\r\nY: [secure]\r\n"
    edited = edit_header(block, SECURE)
    assert edited.block == b"X: 1\r\nsubject :\tx\r\nSUBJECT: \r\nY: [secure]\r\n"
    assert edited.changed == {"subject"}
    assert [change.as_json() for change in edited.changes] == [
        {"action": "strip_tag", "detail": "secure", "done": True}
    ]


def test_bytes_that_are_no_text_stay() -> None:
    assert edit_header(b"Subject: [secure] \xff\xfe x\r\n", SECURE).block == b"Subject: \xff\xfe x\r\n"


def test_several_tags_at_once_and_unusual_ones() -> None:
    assert stripped("[secure] [top secret] x", "secure", "top secret") == "x"
    assert stripped("[a.b*] [axb] x", "a.b*") == "[axb] x"
    assert stripped("[prote\u0301ge\u0301] x", "prot\u00e9g\u00e9") == "x"
    assert stripped("[STRASSE] x", "straße") == "x"


def test_a_subject_full_of_tags_takes_little_time() -> None:
    assert stripped("[secure]" * 20_000) == ""
    assert "[sec" in stripped("[sec" * 20_000 + "[secure]" + "ure]" * 20_000)
    assert text_of(stripped("=?a?q?x" * 30_000 + "[secure]")) == "=?a?q?x" * 30_000
    assert stripped(("e" + "\u0301" * 40) * 1000 + "[secure]") != ""


WORD = st.sampled_from(
    ["[secure]", "(Secure)", "secure:", "SECURE :", "[se\u200bcure]", " ", "  ", "Re:", "x", "Grüße", "ure]", "[sec",
     "\t", "e", "\u0301", "\u200b", "㎏", "\r\n ", "=?utf-8?q?[secure]?=", "=?utf-8?b?W3NlY3VyZV0=?=",
     "=?latin-1?q?_=FC_?=", "=?utf-8?q?", "?=", "=?utf-8?q?=C3?=", "=?utf-8?q?=BC?=", "secure", "[", "]"]
)  # fmt: skip


@given(st.lists(WORD, max_size=12).map("".join))
def test_what_policy_finds_it_does_not_find_again(subject: str) -> None:
    value = subject.strip().replace("\r\n \r\n", "\r\n ").replace("\r\n ", "\r\n z")
    block = f"Subject: {value}\r\n".encode()
    edited = edit_header(block, SECURE).block
    (field,) = fields(edited)
    assert field.raw == edited
    assert edit_header(edited, SECURE).block == edited
    tag = SubjectTag(("secure",))
    if tag.truth(facts(decode_text(next(iter(fields(block))).value))):
        assert edited != block
        assert tag.truth(facts(decode_text(field.value))) is not True
    elif edited != block:  # our reading is more lenient than the other one
        assert "=?" in value


def facts(subject: str | None) -> MessageFacts:
    return MessageFacts(sender=None, recipient=Address.parse("a@b.example"), subject=subject)


# -- fields ------------------------------------------------------------------------------------------------------------


def test_added_fields_stand_on_top_and_removed_ones_are_gone_in_every_spelling() -> None:
    edits = Edits(remove_headers=frozenset({"x-a", "x-none"}), add_headers=(("X-New", "one"), ("X-A", "again")))
    edited = edit_header(BLOCK, edits)
    assert edited.block == b"X-New: one\r\nX-A: again\r\n" + BLOCK.replace(b"X-A: 1\r\n", b"").replace(
        b"x-a : 2\r\n", b""
    )
    assert edited.changed == {"x-new", "x-a"}
    assert [(change.action, change.detail) for change in edited.changes] == [
        ("remove_header", "x-a"),
        ("add_header", "X-New"),
        ("add_header", "X-A"),
    ]


def test_a_field_that_may_stand_once_takes_the_place_of_others() -> None:
    block = b"Reply-To: a@x.example\r\nreply-to: b@x.example\r\nSubject: x\r\n"
    edited = edit_header(block, Edits(add_headers=(("Reply-To", "c@x.example"),)))
    assert edited.block == b"Reply-To: c@x.example\r\nSubject: x\r\n"


def test_what_is_there_already_is_not_added_again() -> None:
    block = b"X-Note: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nSubject: [Ext] a\r\n"
    edited = edit_header(block, Edits(add_headers=(("X-Note", "Grüße"),), prepend_subject=("[Ext]",)))
    assert (edited.block, edited.changed, edited.changes) == (block, frozenset(), ())


def test_the_order_of_kinds_is_fixed() -> None:
    edits = Edits(
        strip_tags=frozenset({"secure"}), replace_subject="[secure] new", prepend_subject=("secure:", "[Ext]")
    )
    assert edit_header(b"A: b\r\nSubject: old\r\nB: c\r\n", edits).block == (
        b"A: b\r\nSubject: secure: [Ext] [secure] new\r\nB: c\r\n"
    )


def test_a_replaced_subject_leaves_no_other_behind() -> None:
    block = b"Subject: SSN 1\r\nA: b\r\nsubject: SSN 2\r\n"
    assert edit_header(block, Edits(replace_subject="Secure message")).block == b"Subject: Secure message\r\nA: b\r\n"
    assert edit_header(b"A: b\r\n", Edits(replace_subject="x")).block == b"A: b\r\nSubject: x\r\n"
    assert edit_header(b"Subject: SSN\r\n", Edits(replace_subject="")).block == b"Subject: \r\n"


@pytest.mark.parametrize(
    ("subject", "prefix", "after"),
    [
        (b"Subject: a\t b\r\n", "[Ext]", b"Subject: [Ext] a\t b\r\n"),
        (b"Subject:\r\n a\r\n", "[Ext]", b"Subject: [Ext] a\r\n"),
        (b"Subject: \r\n", "[Ext]", b"Subject: [Ext]\r\n"),
        (b"Subject: =?utf-8?q?=C3=BC?=\r\n", "[Ext]", b"Subject: [Ext] =?utf-8?q?=C3=BC?=\r\n"),
        (b"Subject: a\r\n", "[Für]", b"Subject: =?utf-8?q?[F=C3=BCr]?= a\r\n"),
        (b"Subject: =?utf-8?q?a?=\r\n", "[Für]", b"Subject: =?utf-8?q?[F=C3=BCr]_?= =?utf-8?q?a?=\r\n"),
        (b"Subject: " + b"y" * 70 + b"\r\n", "[Ext]", b"Subject: [Ext]\r\n " + b"y" * 70 + b"\r\n"),
        (b"Subject: \xc3\xbc\r\n", "[Ext]", b"Subject: [Ext] \xc3\xbc\r\n"),
    ],
)
def test_a_text_before_the_subject_leaves_it_as_it_was(subject: bytes, prefix: str, after: bytes) -> None:
    edits = Edits(prepend_subject=(prefix,))
    assert edit_header(subject, edits).block == after
    assert edit_header(after, edits).block == after


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=300)
EDITS = st.builds(
    Edits,
    strip_tags=st.frozensets(st.sampled_from(["secure", "x"])),
    remove_headers=st.frozensets(st.sampled_from(["x-a", "subject", "x-none"])),
    add_headers=st.lists(
        st.tuples(st.sampled_from(["X-A", "X-B", "Reply-To"]), st.sampled_from(["1", "a b " * 40])), max_size=3
    ).map(tuple),
    replace_subject=st.none() | TEXT,
    prepend_subject=st.lists(TEXT.filter(str.strip), max_size=2).map(tuple),
    footers=st.just((Footer("ignored here"),)),
)  # fmt: skip
FIELD = st.builds(
    lambda name, value: f"{name}: {value}\r\n".encode("utf-8", "surrogateescape"),
    st.sampled_from(["Subject", "X-A", "X-Other", "x-b", "To", "DKIM-Signature"]),
    st.lists(WORD.filter(lambda word: "\r" not in word), max_size=6).map("".join) | st.binary(max_size=30).map(
        lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"").decode("utf-8", "surrogateescape")
    ),
)  # fmt: skip


@given(st.lists(FIELD, max_size=6).map(b"".join), EDITS)
def test_any_block_stays_one_and_unrelated_fields_stay_octet_for_octet(block: bytes, edits: Edits) -> None:
    edited = edit_header(block, edits)
    before, after = list(fields(block)), list(fields(edited.block))
    assert [f.raw for f in before if f.name not in edited.changed] == [
        f.raw for f in after if f.name not in edited.changed
    ]
    assert edited.changed <= {"subject", "reply-to", "x-a", "x-b"}
    for field in after:
        assert field.raw.endswith(b"\r\n")
        assert b"\n" not in field.raw[:-2].replace(b"\r\n ", b"").replace(b"\r\n\t", b"")
        assert all(line.strip(b" \t") for line in field.raw.split(b"\r\n")[1:-1])
    again = edit_header(edited.block, edits)
    assert again.block == edited.block
    if not edited.changed:
        assert edited.block == block
    if edits.replace_subject is not None and not edits.prepend_subject:
        (subject,) = [f for f in after if f.name == "subject"]
        assert text_of(subject.value.decode()).strip(" \t") == edits.replace_subject.strip(" \t")
    for name, _ in edits.add_headers:
        assert any(f.name == name.lower() for f in after)


@given(st.sampled_from(["Subject", "X-A-Rather-Long-Name-Of-A-Field"]), TEXT)
def test_a_new_field_reads_back_as_it_was_meant(name: str, value: str) -> None:
    raw = fold_field(name, value)
    assert raw.isascii()
    lines = raw.removesuffix(b"\r\n").split(b"\r\n")
    assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
    (field,) = fields(raw)
    assert text_of(field.value.decode()).strip(" \t") == value.strip(" \t")
    if "  " not in value and "=?" not in value:
        parsed = email.message_from_bytes(raw + b"\r\n", policy=email.policy.compat32)
        assert decode_text(str(parsed[name]).replace("\n", "").encode()) in {value.strip(" \t"), value.strip()}


@given(TEXT, st.sampled_from(["utf-8", "iso-8859-1", "iso-2022-jp", "gb18030", "utf-7"]), st.sampled_from("qb"))
def test_encoded_words_are_short_and_whole(text: str, charset: str, encoding: str) -> None:
    words = encode_words(text, charset, encoding).split("\r\n ") if text else []
    assert all(len(word) <= 75 for word in words)
    assert text_of("\r\n ".join(words)) == text


# -- signatures --------------------------------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
BODY = b"Hello\r\n"


SIGNABLE = BLOCK.replace(b"x-a :", b"x-a:")  # the other program does not take the blank


def signed(block: bytes, *names: str, canonicalize: bytes = b"simple/simple") -> bytes:
    header, _, body = canonicalize.partition(b"/")
    signature = dkim.sign(
        block + b"\r\n" + BODY, b"s1", b"clinic.example", PRIVATE,
        canonicalize=(header, body), include_headers=[name.encode() for name in names],
    )  # fmt: skip
    return bytes(signature) + block


def verifies(block: bytes) -> bool:
    record = b"v=DKIM1; k=rsa; p=" + b64encode(PUBLIC)
    check = dkim.verify(block + b"\r\n" + BODY, dnsfunc=lambda *_a, **_k: record)  # type: ignore[no-untyped-call]  # ships none
    return bool(check)


def carried_out(block: bytes, edits: Edits) -> bytes:
    after = edit_header(block, edits).block
    return b"".join(f.raw for f in without_broken(list(fields(block)), list(fields(after)), body_changed=False))


UNCOVERED = Edits(
    remove_headers=frozenset({"x-a", "received"}),
    add_headers=(("X-Sent-By", "gateway"), ("To2", "x")),
    replace_subject="Secure message",
)


@pytest.mark.parametrize("canonicalize", [b"simple/simple", b"relaxed/relaxed"])
def test_a_signature_over_what_was_not_changed_stays_and_verifies(canonicalize: bytes) -> None:
    block = signed(SIGNABLE, "from", "to", canonicalize=canonicalize)
    assert verifies(block)
    edited = carried_out(block, UNCOVERED)
    assert b"DKIM-Signature" in edited
    assert b"Secure message" in edited
    assert verifies(edited)


@pytest.mark.parametrize(
    ("names", "edits"),
    [
        (("from", "subject"), Edits(prepend_subject=("[Ext]",))),
        (("from", "x-a"), Edits(remove_headers=frozenset({"x-a"}))),
        (("from", "x-sent-by"), Edits(add_headers=(("X-Sent-By", "gateway"),))),  # signed as absent
    ],
)
def test_a_signature_over_what_was_changed_goes(names: tuple[str, ...], edits: Edits) -> None:
    block = signed(SIGNABLE, *names)
    assert b"DKIM-Signature" not in carried_out(block, edits)


def test_another_field_of_a_name_that_was_signed_goes_above_it_and_breaks_nothing() -> None:
    block = signed(SIGNABLE, "from", "x-a", "x-a")
    edited = carried_out(block, Edits(add_headers=(("X-A", "3"),)))
    assert edited.startswith(b"X-A: 3\r\nDKIM-Signature")
    assert verifies(edited)


def names_left(before: bytes, after: bytes, *, body_changed: bool = False) -> list[str]:
    left = without_broken(list(fields(before)), list(fields(after)), body_changed=body_changed)
    return [field.name for field in left]


ARC = (
    b"ARC-Seal: i=1; cv=none; b=x\r\nARC-Message-Signature: i=1; a=rsa-sha256;\r\n h=from:subject; bh=x; b=x\r\n"
    b"ARC-Authentication-Results: i=1; x\r\n"
)


def test_a_chain_goes_as_a_whole_where_its_newest_signature_breaks() -> None:
    before = ARC + b"From: a\r\nSubject: b\r\nX-A: 1\r\n"
    assert names_left(before, before.replace(b"X-A: 1\r\n", b"")) == [
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
        "from",
        "subject",
    ]
    assert names_left(before, before.replace(b"Subject: b", b"Subject: c")) == ["from", "subject", "x-a"]
    assert names_left(before, before, body_changed=True) == ["from", "subject", "x-a"]
    older = ARC.replace(b"i=1", b"i=2").replace(b"from:subject", b"from") + before
    assert "arc-seal" in names_left(older, older.replace(b"Subject: b", b"Subject: c"))
    assert names_left(before, before.replace(b"ARC-Seal: i=1; cv=none; b=x\r\n", b"")) == ["from", "subject", "x-a"]


def test_a_signature_over_a_broken_one_goes_with_it() -> None:
    before = (
        b"DKIM-Signature: v=1; h=from : dkim-signature; bh=x; b=x\r\nX-Google-DKIM-Signature: h=from; b=y\r\n"
        b"DKIM-Signature: v=1; h=subject; b=x\r\nFrom: a\r\nSubject: b\r\n"
    )
    after = before.replace(b"Subject: b", b"Subject: c")
    assert names_left(before, after) == ["x-google-dkim-signature", "from", "subject"]
    assert names_left(before, before) == [field.name for field in fields(before)]


def test_what_does_not_say_what_it_covers_covers_everything() -> None:
    before = b"DomainKey-Signature: a=rsa-sha1; b=x\r\nDKIM-Signature: nonsense\r\nFrom: a\r\nX: 1\r\n"
    assert names_left(before, before) == ["domainkey-signature", "dkim-signature", "from", "x"]
    assert names_left(before, before.replace(b"X: 1\r\n", b"")) == ["from"]


def test_line_ends_of_another_kind_do_not_become_more() -> None:
    raw, found = without_tags(b"Subject: [secure] a\n b\n", frozenset({"secure"}))
    assert found == {"secure"}
    assert list(fields(raw)) == [Field("subject", b"Subject: a b\r\n")]
