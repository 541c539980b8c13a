"""Octets to text: the charsets that mail names, and those that it means (RFC 2045 section 5, RFC 2046 section 4.1.2).

The name in a message is a claim. Where it is wrong or unknown, text that is valid UTF-8 is taken as such; all else is
said not to be readable, and read as Latin-1 nevertheless: identifiers are mostly ASCII, and these are found so.
Where mail programs are known to differ, there are several readings.
"""

from __future__ import annotations

import re
from contextlib import suppress
from encodings.aliases import aliases
from typing import NamedTuple

__all__ = ["Readings", "as_lines", "read_text", "without_controls"]


class Readings(NamedTuple):
    """Every text that the octets may stand for, the likeliest first; ``fault`` says what was in doubt, or is ""."""

    texts: tuple[str, ...]
    fault: str


#: What a reader does not see: C0 controls without tab, line ends, form feeds, and ESC, SO, SI, which change charsets.
_CONTROLS = bytes(range(0x09)) + bytes(range(0x10, 0x1B)) + b"\x1c\x1d\x1e\x1f\x7f"
_SHIFTS = b"\x0e\x0f\x1b"
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]+")

#: Codecs of Python that are no charsets, or cost more than linear time (punycode, idna).
_NO_CHARSET = frozenset(
    {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "tactis", "mbcs"}
    | {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "oem", "utf_8_sig", "charmap"}
)
#: ASCII octets mean something else there, or may: an escape, half a character, a letter of EBCDIC.
_WIDE = frozenset({"utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"})
_STATEFUL = frozenset(
    {"utf_7", "hz", "iso2022_kr", "iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3"}
    | {"iso2022_jp_ext"}
)
_FOREIGN = frozenset(
    {"cp037", "cp273", "cp424", "cp500", "cp864", "cp875", "cp1026", "cp1140", "cp930", "cp933", "cp935", "cp937"}
)
#: Python has them, its alias table does not.
_UNLISTED = ("cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_r", "koi8_t", "koi8_u", "utf_16", "utf_32")

#: Names seen in mail that Python does not know, and names that mean more than they say: writers of ``gb2312`` use
#: GBK, those of ``iso-8859-1`` use the quotation marks of Windows (WHATWG Encoding section 4.2 has the same list).
_IN_THE_WILD = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "hz": "hz",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "cp950",
    "latin_1": "cp1252",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "tis_620": "cp874",
}
_MORE_NAMES = {
    "x_gbk": "gb18030",
    "chinese": "gb18030",
    "gb2312_80": "gb18030",
    "x_euc_cn": "gb18030",
    "gb_2312_80": "gb18030",
    "windows_936": "gb18030",
    "ks_c_5601_1987": "cp949",
    "ks_c_5601": "cp949",
    "ksc5601": "cp949",
    "x_windows_949": "cp949",
    "windows_949": "cp949",
    "x_euc_kr": "cp949",
    "x_sjis": "cp932",
    "x_ms_cp932": "cp932",
    "windows_31j": "cp932",
    "windows_932": "cp932",
    "x_euc_jp": "euc_jp",
    "x_euc": "euc_jp",
    "x_x_big5": "cp950",
    "x_big5": "cp950",
    "windows_950": "cp950",
    "cn_big5": "cp950",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "iso_8859_6_e": "iso8859_6",
    "windows_874": "cp874",
    "dos_874": "cp874",
    "x_mac_roman": "mac_roman",
    "x_mac_cyrillic": "mac_cyrillic",
    "x_mac_ce": "mac_latin2",
    "x_mac_greek": "mac_greek",
    "x_mac_turkish": "mac_turkish",
    "unicode_1_1_utf_7": "utf_7",
    "x_unicode_2_0_utf_7": "utf_7",
    "unicode_2_0_utf_7": "utf_7",
    "unicode_1_1_utf_8": "utf_8",
    "unicode_2_0_utf_8": "utf_8",
    "x_unicode_2_0_utf_8": "utf_8",
    "utf_8_sig": "utf_8",
    "utf_8_strings": "utf_8",
    "x_utf_8": "utf_8",
    "utf8mb4": "utf_8",
    "iso_10646_ucs_2": "utf_16",
    "csunicode": "utf_16",
    "unicode": "utf_16",
    "ucs_2": "utf_16",
    "unicodefffe": "utf_16_be",
    "unicodefeff": "utf_16_le",
    "iso_10646_ucs_4": "utf_32",
    "ucs_4": "utf_32",
    "_iso_2022_jp": "iso2022_jp_2",
    "x_iso_2022_jp": "iso2022_jp_2",
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
    "hz_gb_2312": "hz",
    "x_hz_gb_2312": "hz",
    "iso_8859_1_windows_3_0_latin_1": "cp1252",
    "ansi": "cp1252",
    "ansi_x3_110_1983": "cp1252",
    "x_ansi": "cp1252",
    "x_cp1250": "cp1250",
    "x_cp1251": "cp1251",
    "x_cp1252": "cp1252",
    "7bit": "ascii",
    "8bit": "ascii",
    "us": "ascii",
    "x_roman8": "hp_roman8",
    "koi8": "koi8_r",
    "koi": "koi8_r",
    "koi8_ru": "koi8_u",
}


def _names() -> dict[str, str]:
    codecs = {codec for codec in aliases.values() if codec not in _NO_CHARSET} | set(_UNLISTED)
    names = {codec: codec for codec in codecs}
    names |= {alias: codec for alias, codec in aliases.items() if codec in codecs}
    names = {name: _IN_THE_WILD.get(codec, codec) for name, codec in names.items()}
    return names | {f"x_{name}": codec for name, codec in names.items()} | _MORE_NAMES


_CODECS = _names()
_SEPARATORS = str.maketrans("-. :+()", "_______")
_JAPANESE = ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_2004", "cp932")
_ESCAPES = re.compile(rb"\x1b[$(]")


def _codec(name: str) -> str | None:
    """The codec for a charset's name. Names of strangers never get into Python's own registry, which never forgets."""
    plain = name.partition("(")[0].strip(" \t\"'").lower().translate(_SEPARATORS)
    return _CODECS.get(plain) or _CODECS.get(plain.replace("__", "_").strip("_"))


def as_lines(data: bytes) -> bytes:
    """With LF as the only line end."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def without_controls(data: bytes) -> bytes:
    """Without the control characters that no reader sees; for charsets in which ASCII octets mean ASCII."""
    return data.translate(None, _CONTROLS + _SHIFTS)


def read_text(data: bytes, charset: str = "") -> Readings:
    """The text, or texts, of ``data`` in the charset that was declared ("": none was). Never raises."""
    codec = "ascii" if not charset else _codec(charset)
    if codec in _WIDE:
        return _wide(data, codec)
    if codec in _STATEFUL:
        return _stateful(as_lines(data), codec)
    if codec in _FOREIGN:
        return _foreign(data, codec)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _wide(data, "utf_16")  # no text in a charset like ASCII begins so, and readers look
    data = as_lines(data)
    escapes = _escapes(data) if b"\x1b" in data else ()
    data = without_controls(data)
    if codec is None:
        read = _unknown(data, charset)
    elif data.isascii():
        read = Readings((data.decode("ascii"),), "")
    else:
        read = _superset(data, codec)
    return read if not escapes else Readings((*read.texts, *escapes), read.fault)


def _escapes(data: bytes) -> tuple[str, ...]:
    """Text with the escapes of ISO 2022 although it was declared otherwise: some programs follow them."""
    return (_cleaned(data.decode("iso2022_jp_2", "replace")),) if _ESCAPES.search(data) else ()


def _cleaned(text: str) -> str:
    return _CONTROL_CHARACTERS.sub("", text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _superset(data: bytes, codec: str) -> Readings:
    """A charset that contains ASCII, and octets that are not."""
    if codec not in {"ascii", "utf_8"}:
        try:
            return Readings((data.decode(codec),), "")
        except UnicodeDecodeError:
            if codec == "cp1252":  # five octets are undefined in it, none in Latin-1
                return Readings((data.decode("latin-1"),), "")
    try:
        return Readings((data.decode("utf-8"),), "")
    except UnicodeDecodeError:
        pass
    loose = () if codec == "ascii" else (data.decode(codec, "replace"),)
    fault = "octets outside its charset" if codec != "ascii" else "no charset is declared, and it is not UTF-8"
    return Readings((*loose, data.decode("latin-1")), fault)


def _unknown(data: bytes, charset: str) -> Readings:
    fault = f"charset {charset[:40]!r} is unknown"
    if data.isascii():
        return Readings((data.decode("ascii"),), fault)
    try:
        return Readings((data.decode("utf-8"),), "")
    except UnicodeDecodeError:
        return Readings((data.decode("latin-1"),), fault)


def _wide(data: bytes, codec: str) -> Readings:
    """UTF-16 and UTF-32, with or without a byte order mark, whatever the name says about the order."""
    unit = 4 if codec.startswith("utf_32") else 2
    base = "utf_32" if unit == 4 else "utf_16"
    marked = (
        data[:4] in (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff") if unit == 4 else data[:2] in (b"\xff\xfe", b"\xfe\xff")
    )
    if marked:
        names: tuple[str, ...] = (base,)
    elif codec == base:  # RFC 2781 section 4.3 says big-endian, Windows writes little-endian: both
        names = (f"{base}_le", f"{base}_be")
    else:
        names = (codec,)
    texts: list[str] = []
    for name in names:
        with suppress(UnicodeDecodeError):
            texts.append(data.decode(name))
    fault = "" if texts else f"it is not valid {base.replace('_', '-').upper()}"
    if fault:
        texts.append(data.decode(names[0], "replace"))
    if data.isascii() and b"\x00" not in data and data:  # plain text under a wrong name
        texts.append(data.decode("ascii"))
        fault = fault or "its charset is in doubt"
    return Readings(tuple(_lines(_cleaned(text)) for text in texts), fault)


def _stateful(data: bytes, codec: str) -> Readings:
    """Charsets whose ASCII octets may be escapes: as declared, and as a program shows them that knows only ASCII."""
    for name in (codec, *_JAPANESE) if codec.startswith("iso2022_jp") else (codec,):
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, ValueError):
            continue
        plain = without_controls(data).decode("latin-1")
        text = _cleaned(text)
        same = text == plain or codec.startswith("iso2022")
        return Readings((text,) if same else (text, plain), "")
    texts = (_cleaned(data.decode(codec, "replace")), without_controls(data).decode("latin-1"))
    return Readings(texts, "octets outside its charset")


def _foreign(data: bytes, codec: str) -> Readings:
    """EBCDIC and its like: any octets are text in it, so text that is not is looked for."""
    text = _lines(_cleaned(data.decode(codec, "replace").replace("\x85", "\n")))
    if data and (data.isascii() or b"\x00" in data):
        return Readings((text, without_controls(as_lines(data)).decode("latin-1")), "its charset is in doubt")
    return Readings((text,), "" if "\ufffd" not in text else "octets outside its charset")
