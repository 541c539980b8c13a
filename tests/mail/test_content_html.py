"""HTML is read as a browser shows it - held against a browser's parser - and nothing that is hidden is lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from gateway.mail.content.html_text import html_text


def lines(html: str) -> list[str]:
    return [" ".join(line.split()) for line in html_text(html).texts[0].split("\n") if line.strip()]


def test_elements_in_the_line_join_and_blocks_separate() -> None:
    assert lines("<p>a<b>b</b>c</p>d<div>e</div>f<br>g<hr>h") == ["abc", "d", "e", "f", "g", "h"]
    assert lines("<ul><li>a<li>b</ul>") == ["a", "b"]
    assert lines("<P>A<B>b</B></P><TD>c</TD>") == ["Ab", "c"]


def test_cells_separate_and_are_joined_in_a_reading_of_its_own_where_a_number_may_go_on() -> None:
    read = html_text("<table><tr><td>SSN</td><td>12</td><td>34</td></tr></table>")
    assert [line for line in read.texts[0].split("\n") if line.strip()] == ["SSN", "12", "34"]
    assert len(read.texts) == 1
    read = html_text("<td>12-</td>\n <td>34</td>")
    assert "12-34" in read.texts[1]


def test_scripts_styles_and_comments_are_not_in_the_line() -> None:
    assert lines("a<style>p{}</style>b<script>if (1) x()</script>c<!-- no -->d") == ["abcd", "no"]
    assert lines("<style><!-- p{} --></style>a") == ["a"]


def test_references_are_decoded_once() -> None:
    assert lines("a &amp;lt; b &eacute;&#233;&#xE9; &unknown; &") == ["a &lt; b ééé &unknown; &"]
    assert lines("&#" + "9" * 10_000 + ";x") == ["\ufffdx"]


def test_attributes_that_people_read_and_addresses_stand_after_the_text() -> None:
    html = '<a href="mailto:a@x.example?subject=b%20c" title="tip">go</a><img alt=pic src="cid:1">'
    assert lines(html) == ["go", "mailto:a@x.example?subject=b%20c", "mailto:a@x.example?subject=b c", "tip", "pic"]


def test_an_attribute_that_comes_again_is_noted_again_when_it_differs() -> None:
    assert lines("<i title=a>x</i><i title=b>y</i><i title=a>z</i>") == ["xyz", "a", "b"]


def test_what_is_hidden_is_text_and_within_a_word_the_word_is_read_without_it_too() -> None:
    read = html_text('ab<span style="display:none">X</span>cd<p hidden>p</p>')
    assert read.texts[0].startswith("abXcd")
    assert read.texts[1].startswith("abcd")
    assert len(html_text('<div style="display:none">preview</div><p>text').texts) == 1


def test_nested_hidden_elements_end_where_the_outer_one_ends() -> None:
    read = html_text("a<i style='display:none'>x<i>y</i>z</i>b")
    assert read.texts == ("axyzb", "ab")


def test_a_class_hides_from_where_the_style_says_so() -> None:
    assert html_text(
        "a<i class='q r'>x</i>b<style>.q { color:red; display : none }</style>a<i class='q r'>x</i>b"
    ).texts == (
        "axbaxb",
        "axbab",
    )


def test_what_only_outlook_shows_is_one_reading_and_what_the_rest_show_the_other() -> None:
    read = html_text("1<!--[if gte mso 9]><b>2</b><![endif]-->3")
    assert read.texts[0].startswith("123")
    assert read.texts[1].startswith("13")


def test_a_tag_that_never_ends_loses_nothing() -> None:
    for html in ("<a b='never", "<a never", '<a b="<p>never', "<!-- never", "<style>never<b>", "<a <b>never"):
        assert "never" in html_text(html).texts[0], html


def test_data_addresses_are_handed_over() -> None:
    assert html_text('<img src="data:image/png;base64,AAAA">').data == ("data:image/png;base64,AAAA",)


TAGS = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<b>",
        "</b>",
        "<div>",
        "</div>",
        "<td>",
        "<br>",
        "<br/>",
        "<span>",
        "</span>",
        "<i a='b'>",
        "<!-- c -->",
        "<a title='>'>",
        "</a>",
        "<!---->",
        "<!-->",
        "<li>",
        "<h1>",
        "<?x?>",
        "<!x>",
        "</ x>",
        "<",
        "&amp;",
        "&lt;",
        "&nbsp",
        '<b c="d>e">',
        "<b c=d/>",
        "<b/c>",
        "<b =>",
        "<b '>",
        "<ul>",
        "</ul>",
        "<pre>",
        "<title>t</title>",
        "<p",
        " ",
        "<style>s</style>",
        "<script>s</script>",
        "<style>",
        "</style>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<font x=y>",
    ]
)
WORDS = st.text("abcdefgh123456", min_size=1, max_size=6)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(TAGS, WORDS), max_size=25))
@example(["<b '>", "visible", "<b '>"])
@example(["<a title='>'>", "visible"])
@example(["<!-->", "visible", "-->"])
@example(["<![CDATA[", "<a title='>'>", "visible"])
@example(["<![CDATA[", "<a x='>visible'>"])
def test_every_word_that_a_browsers_parser_shows_is_read(pieces: list[str]) -> None:
    """The parser of a browser is the oracle: each of its text nodes stands in one of our readings."""
    html = "<body>" + "".join(pieces)
    tree = LexborHTMLParser(html)
    for tag in ("script", "style"):
        for node in tree.css(tag):
            node.decompose()
    body = tree.body
    assert body is not None
    ours = ["".join(text.split()) for text in html_text(html).texts]
    for node in body.traverse(include_text=True):
        if node.tag == "-text":
            text = "".join((node.text_content or "").split())
            assert any(text in reading for reading in ours), (text, html)


def test_quadratic_traps_are_linear() -> None:
    """400 KB of nested elements: what trees take minutes for."""
    assert html_text("<div>" * 80_000 + "deep").texts[0].endswith("deep")
    assert html_text("<p><b><i>" * 30_000 + "deep").texts[0].endswith("deep")


@pytest.mark.parametrize(
    "html", ["", "<", "<>", "</", "<!", "<!-", "<!--", "&", "&#", "&#x", "\x00\x01\x02\x03", "\ud800<\udfff"]
)
def test_fragments_are_read(html: str) -> None:
    assert html_text(html).fault == ""
