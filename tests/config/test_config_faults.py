"""Every kind of fault, told in plain words at the exact place; ``@@`` in a text marks where."""

from __future__ import annotations

import re

import pytest

from tests.config.conftest import Check

PLAIN = "listeners: [{address: '127.0.0.1:25', tls: none}]\n"
SECRET = "{name: X-Relay, value: 0123456789abcdef}"


def one(accept: str, rest: str = "") -> str:
    """A connector with this ``accept``."""
    return PLAIN + f"connectors:\n  - name: c\n    senders: [clinic.example]\n    accept: {accept}\n{rest}"


MODEL_FAULTS = {
    "mistyped key": ("@@hostnam: x", "unknown key 'hostnam', did you mean 'hostname'?"),
    "mistyped nested key": ("delivery:\n  retry: {@@frist: 1m}", "unknown key 'frist', did you mean 'first'?"),
    "mistyped key in a list": (
        "listeners:\n  - address: '127.0.0.1:25'\n    @@tsl: none",
        "unknown key 'tsl', did you mean 'tls'?",
    ),
    "mistyped key in a mapping by domain": (
        "delivery: {routes: {a.example: {host: h.example, @@finale: true}}}",
        "unknown key 'finale', did you mean 'final'?",
    ),
    "key like none": ("metrics: {@@zzz: 1}", "unknown key 'zzz'; known here: listen"),
    "key in capitals": ("@@LISTENERS: []", "unknown key 'LISTENERS', did you mean 'listeners'?"),
    "bad duration": (
        "delivery: {retry: {first: @@soon}}",
        "expected a duration such as 90s, 15m, 4h or 5d, found 'soon'",
    ),
    "duration without unit": ("delivery: {retry: {first: @@60}}", "expected a duration such as .* found 60"),
    "negative duration": ("delivery: {retry: {first: @@-5m}}", "expected a duration"),
    "bad size": ("limits: {header_size: @@big}", "expected a size such as 25MB or 64KiB, found 'big'"),
    "size too small": ("limits: {header_size: @@1B}", "expected at least 1024, found '1B'"),
    "count as text": ("limits: {errors: @@many}", "expected a whole number, found 'many'"),
    "count as truth": ("limits: {errors: @@true}", "expected a whole number, found true"),
    "count zero": ("limits: {errors: @@0}", "expected at least 1, found 0"),
    "truth as text": ("log: {addresses: @@maybe}", "expected true or false, found 'maybe'"),
    "wrong choice": ("log: {level: @@loud}", "expected debug, info, warning, error, found 'loud'"),
    "wrong member": (
        "listeners: [{address: '127.0.0.1:25', tls: @@ssl}]",
        "expected none, offered, required, implicit",
    ),
    "mapping expected": ("delivery: @@5", "expected a mapping, found 5"),
    "empty section": ("delivery:@@\nlog: {level: info}", "expected a mapping, found nothing"),
    "list expected": ("connectors: @@{name: c}", "expected a list, found a mapping"),
    "port out of range": ("delivery: {port: @@70000}", "expected at most 65535, found 70000"),
    "listener without port": ("listeners: [@@{address: 127.0.0.1, tls: none}]", "without a port"),
    "listener missing address": ("listeners: [@@{tls: none}]", "the key 'address' is missing"),
    "bad endpoint": ("metrics: {listen: @@nowhere}", "expected \"host:port\", found 'nowhere' without a port"),
    "network with host bits": (
        one("{networks: [@@10.1.2.3/8]}"),
        "'10.1.2.3/8' is not a network: did you mean 10.0.0.0/8",
    ),
    "unknown cloud": (one("{networks: [@@office365]}"), "microsoft365 or google, found 'office365'"),
    "resolver by name": ("dns: {resolvers: [@@resolver.example:53]}", "expected the IP address of a resolver"),
    "bad trust_ad": ("dns: {trust_ad: @@perhaps}", "expected auto, true or false"),
    "workers": ("workers: @@0", "expected auto or a whole number from 1 to 256"),
    "bad domain as key": ("delivery: {routes: {@@a..example: 'h:25'}}", "empty label"),
    "bad pin": ("delivery: {pins: {a.example: {spki: @@abc}}}", "expected a SHA-256 digest of a public key"),
    "bad tenant id": (
        one(f"{{networks: microsoft365, tenant: {{id: @@77}}, header: {SECRET}}}"),
        "expected the tenant's GUID",
    ),
    "sender is an address": (
        PLAIN + "connectors: [{name: c, accept: {networks: [10.0.0.0/8]}, senders: [@@a@b.example]}]",
        "found the address 'a@b.example'",
    ),
    "header name with colon": (one("{header: {name: @@'X-R:', value: 0123456789abcdef}}"), "without a colon"),
    "value and values": (one("{header: @@{name: X-R, value: a, values: [b]}}"), "keep one of them"),
    "no values": (one("{header: {name: X-R, values: @@[]}}"), "expected at least one entry"),
    "secret from a missing file": (
        one("{header: {name: X-R, value: @@file:gone}}"),
        "cannot read the secret .* No such file",
    ),
    "secret from a missing variable": (one("{header: {name: X-R, value: @@'${GONE}'}}"), "GONE is not set"),
    "credential without systemd": (one("{header: {name: X-R, value: @@'credential:x'}}"), "CREDENTIALS_DIRECTORY"),
    "literal key": ("store: {keys: [@@hunter2]}", "a key itself does not belong in here"),
    "route to port 0": ("delivery: {routes: {a.example: @@'h.example:0'}}", "port 0 cannot be connected to"),
}


@pytest.mark.parametrize(("text", "words"), MODEL_FAULTS.values(), ids=MODEL_FAULTS.keys())
def test_what_the_model_refuses(check: Check, text: str, words: str) -> None:
    message = check(text).only_fault
    assert re.search(words, message)
    assert "pydantic" not in message
    assert "Value error" not in message


CERTIFICATE = "listeners: [{address: '127.0.0.1:25', tls: none}, {address: '127.0.0.1:26', tls: @@%s}]"

BETWEEN = {
    **{
        f"{mode} without certificate": (CERTIFICATE % mode, "no tls.certificate")
        for mode in ("required", "offered", "implicit")
    },
    "same address twice": (
        "listeners: [{address: '127.0.0.1:25', tls: none}, {address: @@'127.0.0.1:25', tls: none}]",
        "given to two listeners",
    ),
    "same listener name twice": (
        "listeners: [{address: '127.0.0.1:25', tls: none, name: a}, {address: '127.0.0.1:26', tls: none, name: @@a}]",
        "the name 'a' is given to two listeners",
    ),
    "client certificates without TLS": (
        "listeners: [{address: '127.0.0.1:25', tls: none, client_certificates: @@request}]",
        "without TLS there are no client certificates",
    ),
    "a proxy that may be anyone": (
        "listeners: [{address: '127.0.0.1:25', tls: none, proxy_protocol: [10.0.0.1, @@'0.0.0.0/0']}]",
        "trusts everyone",
    ),
    "cloud network alone": (one("{networks: @@[microsoft365]}"), "EchoSpoofing"),
    "cloud network beside another": (one("{networks: @@[10.0.0.0/8, google]}"), "shared by all its tenants"),
    "no factor": (PLAIN + "connectors:\n  - @@name: c\n    senders: [a.example]", "open relay"),
    "empty accept": (one("@@{listeners: ['127.0.0.1:25']}"), "open relay"),
    "portal in clear": ("portal: {url: @@'http://secure.clinic.example'}", "expected https"),
    "portal's url without scheme": ("portal: {url: @@secure.clinic.example}", "expected a URL such as https://"),
    "portal's url with a path": ("portal: {url: @@'https://clinic.example/mail'}", "scheme and host alone"),
    "portal's url with a query": ("portal: {url: @@'https://clinic.example?x=1'}", "scheme and host alone"),
    "portal's url with a user": ("portal: {url: @@'https://me@clinic.example'}", "scheme and host alone"),
    "portal's url with a bad port": ("portal: {url: @@'https://clinic.example:http'}", "expected a URL"),
    "portal's proxies are everybody": (
        "portal: {url: 'https://clinic.example', trusted_proxies: [10.0.0.1, @@'0.0.0.0/0']}",
        "trusts everyone",
    ),
    "portal at a listener": (
        PLAIN + "portal: {url: 'http://127.0.0.1', listen: @@'127.0.0.1:25'}",
        "is that of a listener",
    ),
    "portal at the metrics": (
        "portal: {url: 'http://localhost:9725', listen: @@'127.0.0.1:9725'}",
        "is that of metrics.listen",
    ),
    "the whole Internet": (one("{networks: @@['0.0.0.0/0']}"), "open relay"),
    "the whole IPv6 Internet": (one("{networks: @@['10.0.0.0/8', '::/0']}"), "open relay"),
    "tenant headers from anywhere": (one("{tenant: @@clinic.example}"), "anyone can write the tenant headers"),
    "empty tenant": (
        one(f"{{networks: microsoft365, tenant: @@{{}}, header: {SECRET}}}"),
        "a tenant needs an id or domains",
    ),
    "header of mail itself": (one("{header: {name: @@Subject, value: 0123456789abcdef}}"), "meaning of its own"),
    "header of ours": (one("{header: {name: @@x-gateway-tag, value: 0123456789abcdef}}"), "meaning of its own"),
    "unknown listener": (one("{networks: [10.0.0.0/8], listeners: [@@other]}"), "there is no listener 'other'"),
    "client certificate never asked for": (
        one("{client_certificate: @@gw.clinic.example}"),
        "client_certificates: request",
    ),
    "same connector name twice": (
        one("{networks: [10.0.0.0/8]}", "  - {name: @@c, senders: [a.example], accept: {networks: [10.0.0.0/8]}}"),
        "the name 'c' is given to two connectors",
    ),
    "no senders": (PLAIN + "connectors:\n  - @@name: c\n    accept: {networks: [10.0.0.0/8]}", "needs `senders`"),
    "empty senders": (
        PLAIN + "connectors: [{name: c, senders: @@[], accept: {networks: [10.0.0.0/8]}}]",
        "needs `senders`",
    ),
    "any sender from a cloud": (
        PLAIN
        + f"connectors: [{{name: c, senders: [a.example, @@'*'], accept: {{networks: google, header: {SECRET}}}}}]",
        "lets every domain through",
    ),
    "return route to nowhere": (
        one("{networks: [10.0.0.0/8]}", "    return_route: {host: @@0.0.0.0}"),
        "can be connected to",
    ),
    "return route to nowhere, short": (
        one("{networks: [10.0.0.0/8]}", "    return_route: @@'[::]:25'"),
        "can be connected to",
    ),
    "return route to ourselves": (
        one("{networks: [10.0.0.0/8]}", "    return_route: @@'127.0.0.1:25'"),
        "this gateway itself",
    ),
    "route to ourselves by name": (
        "listeners: [{address: '0.0.0.0:25', tls: none}]\ndelivery: {routes: {'*': {host: @@gw.clinic.example}}}",
        "this gateway itself",
    ),
    "password without TLS": (
        "delivery: {routes: {a.example: {host: h.example, tls: none, auth: @@{username: u, password: p}}}}",
        "never sent without TLS",
    ),
    "final for everyone": ("delivery: {routes: {'*': {host: h.example, final: @@true}}}", "cannot be final"),
    "final in clear": (
        "delivery: {routes: {a.example: {host: h.example, tls: @@none, final: true}}}",
        "count clear text",
    ),
    "empty pin": ("delivery: {pins: {a.example: @@{}}}", "a pin needs hosts or spki"),
    "first above max": ("delivery: {retry: {first: @@5h, max: 4h}}", "retry.first is above retry.max"),
    "first above the default max": ("delivery: {retry: {first: @@5h}}", "retry.first is above retry.max"),
    "max above expire": ("delivery: {retry: {max: @@6d}}", "retry.max is above retry.expire"),
    "expire below max": ("delivery: {retry: {expire: @@1h}}", "retry.max is above retry.expire"),
    "no pause": ("delivery: {retry: {first: @@0s}}", "expected more than 0s"),
    "no time": ("delivery: {timeouts: {dot: @@0s}}", "expected more than 0s"),
    "password for SQLite": ("store: {password: @@hush}", "store.url is sqlite"),
    "two passwords": (
        "store: {url: 'postgresql://u:one@localhost/db', password: @@two}",
        "store.url has a password already",
    ),
    "a lease too short": ("store: {lease: @@5s}", "expected a duration from 6s to 1h"),
    "a lease too long": ("store: {lease: @@2h}", "expected a duration from 6s to 1h"),
    "no bucket": ("store: {blobs: @@s3://}", "expected file, or s3://BUCKET/PREFIX"),
    "a bucket with a strange name": ("store: {blobs: @@'s3://Bucket_1/x'}", "expected file, or s3://BUCKET/PREFIX"),
    "another place for bodies": ("store: {blobs: @@gs://bucket}", "expected file, or s3://BUCKET/PREFIX"),
    "half a credential": ("store: {blobs: s3://bucket, s3: @@{access_key: a}}", "go together"),
    "an endpoint that is none": (
        "store: {blobs: s3://bucket, s3: {endpoint: @@minio.example}}",
        "expected https://HOST",
    ),
    "same key twice": ("store: {keys: ['file:a', 'file:b', @@'file:a']}", "the key file:a is given twice"),
    "certificate without key": ("tls: @@{certificate: a.pem}", "without tls.key"),
    "key without certificate": ("tls: @@{key: a.pem}", "without tls.certificate"),
}


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "mysql://u:hush-hush@db": "expected `sqlite` or `postgresql://",
        "postgresql://u:hush-hush@db": "names no database",
        "postgresql://u:hush-hush@db/": "names no database",
        "postgresql://u:hush-hush@db:port/g": "expected `sqlite` or",
        "postgresql://u:hush-hush@db/g#x": "expected `sqlite` or",
        "postgresql://u:hush hush@db/g": "without spaces",
        "postgresql:u:hush-hush@db/g": "expected `sqlite` or",
        "hush-hush": "expected `sqlite` or",
    }.items(),
)
def test_a_database_that_cannot_be_meant_is_named_without_its_password(check: Check, text: str, words: str) -> None:
    fault = check(f"store: {{url: @@'{text}'}}").only_fault
    assert words in fault
    assert "hush" not in fault


@pytest.mark.parametrize(("text", "words"), BETWEEN.values(), ids=BETWEEN.keys())
def test_what_does_not_go_together(check: Check, text: str, words: str) -> None:
    assert words in check(text).only_fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@@postmaster: ops@clinic.example\n", "the key 'hostname' is missing"),
        ("hostname: @@gateway\npostmaster: ops@clinic.example\n", "fully qualified"),
        ("hostname: @@gw..example\npostmaster: ops@clinic.example\n", "empty label"),
        ("hostname: @@'[192.0.2.1]'\npostmaster: ops@clinic.example\n", "address literal"),
        ("hostname: gw.clinic.example\npostmaster: @@ops\n", "expected a mail address"),
        (
            "hostname: gw.clinic.example\npostmaster: @@[a]\n",
            "expected a mail address such as ops@clinic.example, found a list",
        ),
        ("@@- a\n- b", "expected a mapping"),
        ("@@just text", "expected a mapping"),
    ],
)
def test_the_top_of_the_file(check: Check, text: str, words: str) -> None:
    assert re.search(words, check(text, whole=True).only_fault)


NOTES = {
    "unbuilt section": ("@@api: {listen: '127.0.0.1:8081'}", "'api' has no effect yet"),
    "portal without url": ("portal: @@{listen: '127.0.0.1:8080'}", "there is no portal"),
    "portal without TLS": ("portal: {url: @@'https://secure.clinic.example'}", "nothing does TLS"),
    "unbuilt, empty": ("@@pgp: {}", "'pgp' has no effect yet"),
    "nobody is alarmed": ("notify: @@{reviewers: [ann@clinic.example]}", "names nobody"),
    "source addresses": ("delivery:\n  source_addresses: @@[192.0.2.1]", "no effect yet"),
    "observe": (one("{networks: [10.0.0.0/8]}", "    stage: @@observe"), "leaves without protection"),
    "short secret": (one("{header: {name: X-R, value: @@hunter2}}"), "shorter than 16"),
    "clear text from the network": ("listeners: [{address: '0.0.0.0:25', tls: @@none}]", "clear text"),
    "open metrics": ("metrics: {listen: @@'0.0.0.0:9725'}", "no authentication"),
    "far resolver": ("dns: {resolvers: [192.0.2.53], trust_ad: @@true}", "beyond this machine"),
    "nothing foreign": (
        PLAIN + "connectors: [{name: c, accept: {networks: [10.0.0.0/8]}, senders: '*', foreign_from: @@forward}]",
        "nothing is foreign",
    ),
}


@pytest.mark.parametrize(("text", "words"), NOTES.values(), ids=NOTES.keys())
def test_what_is_worth_knowing(check: Check, text: str, words: str) -> None:
    assert words in check(text).only_note


def test_a_fault_never_repeats_a_secret(check: Check) -> None:
    for value in ("{s3cret-value: 1}", "[[s3cret-value]]", "['', s3cret-value]"):
        checked = check(one(f"{{header: {{name: X-R, values: {value}}}}}"))
        assert checked.reading.faults
        assert "s3cret-value" not in " ".join(map(str, checked.reading.faults))


def test_all_faults_at_once_in_the_order_of_the_file(check: Check) -> None:
    checked = check(
        """hostname: gw.clinic.example
postmaster: nobody
hostnam: x
listeners:
  - {address: "127.0.0.1:25", tls: required}
  - {address: nonsense}
  - {address: "127.0.0.1:25", tls: none}
connectors:
  - {name: a, accept: {networks: [bogus]}, senders: [a.example]}
  - {name: b, accept: {networks: [google]}, senders: ["*"]}
delivery: {retry: {first: 9h}}
delivery: {}
""",
        whole=True,
    )
    places = [(fault.line, fault.column) for fault in checked.reading.faults]
    assert places == sorted(places)
    # The third listener and the second connector are judged although their neighbours are broken; the certificate
    # is missing for the first.
    assert {line for line, _ in places} == {2, 3, 5, 6, 7, 9, 10, 11, 12}


def test_one_mistake_is_one_fault(check: Check) -> None:
    """A broken ``tls`` section does not make listeners complain that they have no certificate."""
    text = "tls: {certificate: @@5}\nlisteners: [{address: '127.0.0.1:25', tls: required}]"
    assert "expected a path" in check(text).only_fault


def test_a_value_that_comes_from_an_alias_is_told_where_it_is_written(check: Check) -> None:
    text = "delivery:\n  retry: {first: @@&wait soon, max: *wait}"
    checked = check(text)
    assert {(fault.line, fault.column) for fault in checked.reading.faults} == {checked.place}
