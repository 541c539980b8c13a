"""YAML with places, from files that mean harm or are simply broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.source import MAX_NODES, parse_document, read_document


def plain(text: str) -> object:
    document = parse_document(text.encode(), "f.yaml")
    assert document.faults == ()
    return document.root.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: off", {"a": "off"}),
        ("a: no", {"a": "no"}),
        ("no: a", {"no": "a"}),
        ("a: 2026-12-31", {"a": "2026-12-31"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 010", {"a": "010"}),
        ("a: 0x1f", {"a": "0x1f"}),
        ("a: 1e3", {"a": "1e3"}),
        ("a: 25", {"a": 25}),
        ("a: -1.5", {"a": -1.5}),
        ("a: '25'", {"a": "25"}),
        ("a: true", {"a": True}),
        ("a: ~\nb:\nc: null", {"a": None, "b": None, "c": None}),
        ("25: x\ntrue: y", {"25": "x", "true": "y"}),
        ("", {}),
        ("# nothing", {}),
        ("\ufeffa: b", {"a": "b"}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert plain(text) == value


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"a: 1\nb: 2\na: 3", (3, 1), "'a' is given twice; first in line 1"),
        (b"a:\n  b: 1\n  b: 2", (3, 3), "'b' is given twice"),
        (b"a: \xff", (1, 4), "0xff is not valid UTF-8"),
        (b"\xff\xfea\x00", (1, 1), "not valid UTF-8"),
        (b"a: 1\nb: x\x00y", (2, 5), "U+0000"),
        (b"a: \x07", (1, 4), "U+0007"),
        (b"\ta: 1", (1, 1), "a tab"),
        (b"a: b: c", (1, 5), "indentation"),
        (b"a: 1\n b: 2", (2, 3), "indentation"),
        (b"a: 'open", (1, 9), "quoted scalar"),
        (b"a: [1, 2", (1, 9), "flow sequence"),
        (b"---\na: 1\n---\nb: 2", (3, 1), "only one document"),
        (b"a: !!python/object/apply:os.system [ls]", (1, 4), "tags"),
        (b"a: !secret x", (1, 4), "tags"),
        (b"a: !!str 5", (1, 4), "tags"),
        (b"? [a, b]\n: c", (1, 3), "key must be text"),
        (b"? {a: b}\n: c", (1, 3), "key must be text"),
        (b"a: &x\n  b: *x", (2, 6), "inside what it stands for"),
        (b"a: *x", (1, 4), "no anchor &x"),
        (b"a: &x {b: 1}\nc:\n  <<: *x", (3, 3), "merge keys"),
        (b'a: "\\ud800"', (1, 4), "not a character"),
        (b'"\\ud800": a', (1, 1), "not a character"),
        (b'a: "\\UFFFFFFFF"', (1, 1), "not a character"),
        (b'a: "\\U99999999"', (1, 1), "not a character"),
        (b"a: " + b"[" * 41, (1, 44), "40 levels"),
        (b"[" * 100_000, (1, 42), "40 levels"),
        (b"{a: " * 5_000, (1, 165), "40 levels"),
    ],
)
def test_broken_form_is_a_fault_with_its_place(data: bytes, place: tuple[int, int], words: str) -> None:
    document = parse_document(data, "f.yaml")
    (fault,) = document.faults
    assert (fault.file, fault.line, fault.column) == ("f.yaml", *place)
    assert words in fault.message


def test_every_duplicate_key_is_told_and_the_rest_is_still_read() -> None:
    document = parse_document(b"a: 1\na: 2\nb: 3\nb: 4\nc: 5", "f")
    assert [(fault.line, fault.column) for fault in document.faults] == [(2, 1), (4, 1)]
    assert document.root.plain() == {"a": 1, "b": 3, "c": 5}


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 30)]
    document = parse_document("\n".join(lines).encode(), "bomb")
    (fault,) = document.faults
    assert str(MAX_NODES) in fault.message


def test_aliases_cannot_nest_deeper_than_text_may() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 400)]
    (fault,) = parse_document("\n".join(lines).encode(), "f").faults
    assert "40 levels" in fault.message


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"a: " + b"x" * (1 << 20))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in {
        "missing": "No such file",
        ".": "directory",
        "fifo": "not a regular file",
        "large": "larger than 1 MiB",
        "loop": "symbolic links",
    }.items():
        (fault,) = read_document(tmp_path / name, name).faults
        assert (fault.file, fault.line, fault.column) == (name, 1, 1)
        assert words in fault.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a: 1")
    (tmp_path / "f").chmod(0)
    assert "Permission denied" in read_document(tmp_path / "f").faults[0].message


@given(
    st.one_of(
        st.binary(max_size=200), st.text(alphabet="ab:-[]{},&*!|>'\"%@`#? \t\n\\<~0", max_size=80).map(str.encode)
    )
)
def test_no_bytes_can_do_more_than_make_a_fault(data: bytes) -> None:
    document = parse_document(data, "f")
    document.root.plain()
    lines = data.decode("utf-8", "replace").count("\n") + data.count(b"\r") + 3
    assert all(1 <= fault.line <= lines and fault.column >= 1 for fault in document.faults)
