"""The order proof has teeth: it holds for a recorded accept done right, and every sync taken away is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.order import Accepted, faults, transactions
from tests.crash.strace_log import NEVER, Call, parse

SAMPLE = Path(__file__).parent / "samples" / "accept.strace"
DATA = "/srv/sample/data"
BLOB = f"{DATA}/blobs/token-large.sealed"
WAL = f"{DATA}/gateway.db-wal"


def lines() -> list[str]:
    return SAMPLE.read_text(encoding="ascii").splitlines()


def accepted() -> list[Accepted]:
    port = next(call.peer_port for call in parse(lines()) if call.peer_port)
    return [Accepted("token-small", port, 0, 300), Accepted("token-large", port, 1, 20_000)]


def judged(log: list[str]) -> list[str]:
    return faults(parse(log), accepted(), data_dir=DATA, inline=16_384)


def number(name: str, target: str, occurrence: int = -1) -> int:
    """The index of the line that holds that call (of the last one by default)."""
    found = [call.begun - 1 for call in parse(lines()) if call.name == name and call.target == target]
    return found[occurrence]


def reply(text: bytes, occurrence: int = -1) -> int:
    return [call.begun - 1 for call in parse(lines()) if call.payload.startswith(text)][occurrence]


def hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_the_recorded_accept_path_is_in_order() -> None:
    assert judged(lines()) == []


@pytest.mark.parametrize(
    ("name", "target", "occurrence", "words"),
    [
        ("fdatasync", WAL, -2, "token-small: the write-ahead log was not synced"),
        ("fdatasync", WAL, -1, "token-large: the write-ahead log was not synced"),
        ("fsync", f"{BLOB}.new", -1, "was not synced between its last write and its rows"),
        ("fsync", f"{DATA}/blobs", -1, "the directory of"),
        ("fsync", DATA, -1, "its parent was not synced"),
    ],
)
def test_a_sync_that_is_missing_is_noticed(name: str, target: str, occurrence: int, words: str) -> None:
    log = lines()
    del log[number(name, target, occurrence)]
    found = judged(log)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(("name", "target"), [("fdatasync", WAL), ("fsync", f"{BLOB}.new"), ("fsync", f"{DATA}/blobs")])
def test_a_sync_that_failed_does_not_count(name: str, target: str) -> None:
    log = lines()
    index = number(name, target)
    log[index] = log[index].rsplit("=", 1)[0] + "= -1 EIO (Input/output error) (INJECTED)"
    assert len(judged(log)) == 1


def test_a_250_written_before_the_commit_was_synced_is_noticed() -> None:
    log = lines()
    log.insert(number("fdatasync", WAL), log.pop(reply(b"250")))
    assert any("token-large" in fault for fault in judged(log))


def test_a_body_written_after_its_rows_is_noticed() -> None:
    log = lines()
    write = number("write", f"{BLOB}.new")
    log.insert(number("fdatasync", WAL), log.pop(write))
    assert any("no file of 20000 bytes" in fault for fault in judged(log))


def test_a_write_after_the_sync_of_the_file_is_noticed() -> None:
    log = lines()
    write = number("write", f"{BLOB}.new")
    log.insert(number("fsync", f"{BLOB}.new"), log.pop(write))
    assert any("was not synced between its last write" in fault for fault in judged(log))


def test_a_rename_after_the_sync_of_the_directory_is_noticed() -> None:
    log = lines()
    rename = next(call.begun - 1 for call in parse(log) if call.name == "rename")
    log.insert(number("fsync", f"{DATA}/blobs"), log.pop(rename))
    assert any("the directory of" in fault for fault in judged(log))


def test_a_sync_that_began_before_the_commit_was_written_does_not_count() -> None:
    """Another thread's sync of the same log, begun too early, says nothing about our commit."""
    log = lines()
    line = log.pop(number("fdatasync", WAL))
    call = line.split(maxsplit=1)[1]
    begin, end = call.split(") = ")
    page = number("pwrite64", WAL)
    log.insert(page, f"7777  {begin} <unfinished ...>")
    log.insert(reply(b"250") + 1, f"7777  <... fdatasync resumed>) = {end}")
    assert any("token-large: the write-ahead log" in fault for fault in judged(log))


def test_a_250_on_the_wire_that_the_log_does_not_hold_is_noticed() -> None:
    log = lines()
    log[reply(b"250")] = log[reply(b"250")].replace(hexadecimal("250 2.0.0"), hexadecimal("451 4.3.0"))
    assert judged(log) == ["token-large: the reply on the wire is b'451 4.3.0 kept\\r\\n', the client counted a 250"]


def test_a_message_whose_rows_are_in_no_transaction_is_noticed() -> None:
    port = accepted()[0].port
    found = faults(parse(lines()), [Accepted("token-other", port, 0, 300)], data_dir=DATA, inline=16_384)
    assert found == ["token-other: no transaction with its rows was written before its 250"]


def test_replies_in_one_packet_are_told_apart() -> None:
    """With pipelining the 354 stands behind the replies to MAIL and RCPT in one write."""
    log = lines()
    asked = reply(b"354")
    log[asked] = log[asked].replace(hexadecimal("354 "), hexadecimal("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 "))
    assert judged(log) == []


def test_transactions_are_cut_at_the_frame_that_commits() -> None:
    commits = transactions(parse(lines()))
    assert [b"token-small" in one.pages for one in commits] == [False, True, True]
    assert all(one.commit_begun < one.committed for one in commits)


class TestParsing:
    def one(self, *text: str) -> Call:
        (call,) = parse(text)
        return call

    def test_a_call_in_two_lines_keeps_both_numbers(self) -> None:
        other = r'8  write(3</a>, "\x41", 1) = 1'
        calls = parse([r"7  fsync(5</srv/a> <unfinished ...>", other, "7  <... fsync resumed>)   = 0"])
        assert [(call.name, call.begun, call.ended) for call in calls] == [("fsync", 1, 3), ("write", 2, 2)]
        assert calls[0].target == "/srv/a"

    def test_a_call_that_never_returned_never_ended(self) -> None:
        call = self.one("7  fsync(5</srv/a> <unfinished ...>", "7  +++ killed by SIGKILL +++")
        assert call.ended == NEVER
        assert not call.succeeded

    def test_a_call_killed_at_its_entry_never_ended(self) -> None:
        call = self.one("7  fsync(5</srv/a>)                    = ?")
        assert call.ended == NEVER
        assert not call.succeeded

    def test_an_injected_error_is_told(self) -> None:
        call = self.one("7  fsync(5</srv/a>) = -1 EIO (Input/output error) (INJECTED)")
        assert (call.succeeded, call.error, call.injected) == (False, "EIO", True)

    def test_both_ports_of_a_connection(self) -> None:
        call = self.one(r'7  sendto(8<TCP:[127.0.0.1:25->127.0.0.1:4711]>, "\x32\x35\x30", 3, 0, NULL, 0) = 3')
        assert (call.peer_port, call.payload) == (4711, b"250")

    def test_vectors_are_joined(self) -> None:
        call = self.one(
            r"7  sendmsg(8<TCPv6:[::1:25->::1:99]>, {msg_name=NULL, msg_iov=[{iov_base="
            r'"\x41", iov_len=1}, {iov_base="\x42", iov_len=1}], msg_iovlen=2}, 0) = 2'
        )
        assert (call.peer_port, call.payload) == (99, b"AB")

    def test_a_call_seen_only_in_its_end_began_before_the_log(self) -> None:
        assert self.one("7  <... fsync resumed>) = 0").begun == 0

    def test_names_behind_descriptors_and_results(self) -> None:
        call = self.one(r'7  openat(AT_FDCWD<\x2f>, "\x61\x2c\x22", O_RDONLY|O_CREAT, 0600) = 5<\x2f\x61\x2c\x22>')
        assert (call.names, call.strings, call.result_name) == (("/",), (b'a,"',), '/a,"')

    def test_a_line_that_is_none_is_refused_with_its_number(self) -> None:
        with pytest.raises(ValueError, match="line 1"):
            parse(["strace: Process 7 attached"])
