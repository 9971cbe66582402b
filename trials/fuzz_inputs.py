"""What a client could get wrong, as hypothesis strategies: each yields one Attempt.

    kinds(description)["broken JSON"]     Attempts against routes, examples and names it describes

The description says what is right; this module starts there and breaks it: values, JSON, bytes,
headers, paths, queries, and HTTP itself. It sends nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from trials.fuzz_send import Attempt

Description = Mapping[str, Any]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "post")
TOKENS = 2
"""Of the answers to those bodies that are right after all."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-300, 1e308, 2**31, 2**53, 2**63, 10**400),
    *(
        "",
        " ",
        "\x00",
        "\x7f",
        "\ud800",
        "\u202e",
        "日本",
        "🦊",
        "a" * 5000,
        "<|end|>",
        "{}",
        "null",
    ),
    *([], {}, [[]], [{}], [None], {"": ""}, float("nan"), float("inf"), "user", "tool", "auto"),
)
BYTES = st.binary(min_size=1, max_size=8)


def kinds(description: Description) -> dict[str, st.SearchStrategy[Attempt]]:
    """Every generator by its name."""
    asked = {
        path: [one["value"] for one in _examples(operations)]
        for path, operations in description["paths"].items()
        if "post" in operations
    }
    targets = sorted(description["paths"])
    return {
        "changed values": _changed(asked, sorted(_names(description))),
        "broken JSON": _broken(asked),
        "any bytes": st.builds(
            Attempt,
            kind=st.just("any bytes"),
            target=st.sampled_from(sorted(asked)),
            body=st.binary(max_size=300)
            | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")),
        ),
        "methods and paths": _paths(targets),
        "queries": _queries(targets, asked),
        "headers": _headers(asked),
        "not HTTP": _not_http(asked),
    }


def stalled(description: Description) -> list[Attempt]:
    """Clients that stop midway and stay; each takes all of the server's patience: only these."""
    start = b"POST /score HTTP/1.1\r\nHost: fuzz\r\n"
    raws = [
        b"POST /sco",
        start,
        start + b"Content-Length: 50\r\n\r\n{",
        start + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),  # a client that wants TLS
    ]
    return [Attempt(kind="stalled", raw=raw, ends=False) for raw in raws]


def _examples(operations: Mapping[str, Any]) -> list[Any]:
    content = operations["post"]["requestBody"]["content"]["application/json"]
    return list(content["examples"].values())


def _names(value: Any) -> set[str]:
    """Every property that any schema names."""
    if isinstance(value, list):
        return {name for entry in value for name in _names(entry)}
    if not isinstance(value, dict):
        return set()
    own = set(value["properties"]) if isinstance(value.get("properties"), dict) else set()
    return own | {name for entry in value.values() for name in _names(entry)}


def _short(value: Any) -> Any:
    """The example with a small answer."""
    if isinstance(value, list):
        return [_short(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    limits = ("max_tokens", "max_new_tokens")
    return {k: TOKENS if k in limits else _short(entry) for k, entry in value.items()}


def _json(names: Sequence[str]) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=20)
    known = st.sampled_from(names)
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(known | st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands, from the outside in."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    return [at, *(place for key, entry in entries for place in _places(entry, (*at, key)))]


def _changed(
    asked: Mapping[str, Sequence[Any]], names: Sequence[str]
) -> st.SearchStrategy[Attempt]:
    """A right body with up to three of its values replaced, removed or added to."""
    any_json = _json(names)

    @st.composite
    def made(draw: st.DrawFn) -> Attempt:
        path = draw(st.sampled_from(sorted(asked)))
        body: Any = _short(deepcopy(draw(st.sampled_from(list(asked[path])))))
        for _ in range(draw(st.integers(1, 3))):
            place: tuple[Any, ...] = draw(st.sampled_from([(), *_places(body)]))
            *way, last = (None, *place)
            holder: Any = {None: body}
            for key in way:
                holder = holder[key]
            act = draw(st.sampled_from(("replace", "remove", "add", "repeat")))
            if act == "add" and isinstance(holder[last], dict):
                holder[last][draw(st.sampled_from(names) | st.text(max_size=8))] = deepcopy(
                    draw(any_json)
                )
            elif act == "repeat" and isinstance(holder[last], list) and holder[last]:
                holder[last] *= draw(st.integers(2, 70))
            elif act == "remove" and last is not None and isinstance(holder, dict):
                del holder[last]
            else:
                holder[last] = deepcopy(draw(any_json))
            body = holder[None] if last is None else body
        text = json.dumps(body, ensure_ascii=draw(st.booleans()))
        return Attempt(
            kind="changed values", target=path, body=text.encode("utf-8", "surrogatepass")
        )

    return made()


def _broken(asked: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Attempt]:
    """The bytes of a right body, cut, spliced, doubled, nested or encoded otherwise."""

    @st.composite
    def made(draw: st.DrawFn) -> Attempt:
        path = draw(st.sampled_from(sorted(asked)))
        text = json.dumps(_short(draw(st.sampled_from(list(asked[path])))))
        whole = text.encode()
        at = draw(st.integers(0, len(whole)))
        acts: tuple[Callable[[], bytes], ...] = (
            lambda: whole[:at],
            lambda: whole[at:],
            lambda: whole[:at] + draw(BYTES) + whole[at:],
            lambda: whole[:at] + whole[at + 1 :],
            lambda: whole + draw(BYTES),
            lambda: whole[:at] + whole + whole[at:],
            lambda: whole.replace(b"{", b'{"messages": 1, "messages": 2, ', 1),
            lambda: whole.replace(b"2", b"9" * draw(st.integers(1, 5000))),
            lambda: whole.replace(
                b"2", draw(st.sampled_from((b"NaN", b"-Infinity", b"0x2", b"+2")))
            ),
            lambda: whole.replace(b"Hello", b"\\ud800" + draw(BYTES)),
            lambda: b"[" * draw(st.integers(1, 4000)) + whole,
            lambda: b'{"a":' * draw(st.integers(1, 4000)),
            lambda: json.dumps(text).encode(),
            lambda: text.encode(draw(st.sampled_from(("utf-16", "utf-32", "utf-7", "utf-8-sig")))),
            lambda: b" " * draw(st.integers((1 << 20) - 100, 1 << 20)) + whole,
        )
        body = draw(st.sampled_from(acts))()
        return Attempt(kind="broken JSON", target=path, body=body)

    return made()


def _target() -> st.SearchStrategy[str]:
    """A piece of a path: what is told from separators, escapes and other people's files."""
    pieces = (
        *(
            "..",
            ".",
            "%2e%2e",
            "%2f",
            "%00",
            "%ff",
            "%F0%9F",
            "%",
            "%zz",
            "//",
            "\\",
            "*",
            ";",
            "@",
        ),
        *("etc/passwd", "score", "v1", "{deployment}", "a" * 300, "a" * 5000, "C:", "~", "+"),
    )
    return st.sampled_from(pieces) | st.text(st.characters(max_codepoint=255), max_size=6)


def _paths(targets: Sequence[str]) -> st.SearchStrategy[Attempt]:
    more = st.lists(_target(), max_size=3).map("/".join)
    path = st.one_of(
        st.sampled_from(targets),
        st.tuples(
            st.sampled_from(targets), st.sampled_from(("/", "//", "%2f", ".json", ";")), more
        ).map("".join),
        more.map("/{}".format),
        st.sampled_from(targets).map(str.upper),
        st.sampled_from(targets).map(lambda t: "".join(f"%{ord(c):02x}" for c in t)),
    )
    body = st.none() | st.just(b"{}") | st.binary(max_size=20)
    method = st.sampled_from(METHODS)
    made = st.builds(
        Attempt, kind=st.just("methods and paths"), method=method, target=path, body=body
    )
    return made.map(_as_sent)


def _queries(
    targets: Sequence[str], asked: Mapping[str, Sequence[Any]]
) -> st.SearchStrategy[Attempt]:
    names = st.sampled_from(("version", "api-version", "model", "stream", "", "%ff", "a[]"))
    pair = st.tuples(names, _target()).map("=".join)
    query = st.lists(pair, min_size=1, max_size=4).map("&".join)

    def made(path: str, asks: str) -> Attempt:
        body = json.dumps(_short(asked[path][0])).encode() if path in asked else None
        method = "POST" if path in asked else "GET"
        return _as_sent(Attempt(kind="queries", method=method, target=f"{path}?{asks}", body=body))

    return st.builds(made, st.sampled_from([*targets, "/swagger.json", "/docs"]), query)


def _as_sent(attempt: Attempt) -> Attempt:
    """A target with blanks or line ends would be another request; those are of "not HTTP"."""
    target = "".join(c if 33 <= ord(c) <= 126 else f"%{ord(c) & 255:02x}" for c in attempt.target)
    return replace(attempt, target=target)


def _headers(asked: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Attempt]:
    names = (
        *("Content-Type", "Accept", "Accept-Encoding", "Content-Encoding", "Authorization"),
        *("api-key", "Cookie", "Origin", "Range", "If-None-Match", "Expect", "Upgrade", "TE"),
        *("x-request-id", "x-ms-client-request-id", "x-ms-request-id", "TraceId", "traceparent"),
        *("tracestate", "baggage", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"),
        *("SCRIPT_NAME", "PATH_INFO", "X-HTTP-Method-Override", "Forwarded", "Referer", "Host"),
    )
    words = (
        *(b"", b"*/*", b"gzip", b"application/xml", b"multipart/form-data; boundary=", b"00-zz"),
        *(b"100-continue", b"bytes=0-1", b"h2c", b"Bearer", b"a" * 101, b"a" * 9000, b"null"),
        *(b"00-" + b"0" * 32 + b"-" + b"f" * 16 + b"-01", b"application/json; charset=\xff"),
    )
    value = st.sampled_from(words) | st.binary(max_size=20).map(
        lambda raw: raw.replace(b"\r", b"?").replace(b"\n", b"?")
    )
    given = st.lists(st.tuples(st.sampled_from(names), value), min_size=1, max_size=5).map(tuple)

    def made(path: str, headers: tuple[tuple[str, bytes], ...]) -> Attempt:
        body = json.dumps(_short(asked[path][0])).encode()
        return Attempt(kind="headers", target=path, headers=headers, body=body)

    return st.builds(made, st.sampled_from(sorted(asked)), given)


def _not_http(asked: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Attempt]:
    """Lengths that lie, chunks that are none, heads that break off; sent, and the side closed."""
    body = json.dumps(_short(asked["/score"][0])).encode()
    size = b"%x" % len(body)
    start = (
        *(b"POST /score HTTP/1.1", b"GET / HTTP/1.0", b"POST /score HTTP/2.0", b"POST /score"),
        *(b"POST  /score HTTP/1.1", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"POST /sc ore HTTP/1.1"),
    )
    lengths = (b"%d" % len(body), b"%d" % (len(body) + 9), b"3", b"-1", b"9x", b"", b"9" * 30)
    codings = (b"chunked", b"gzip", b"chunked, chunked", b"identity")
    framing = (
        *(b"Content-Length: " + length for length in lengths),
        *(b"Transfer-Encoding: " + coding for coding in codings),
        *(b"a", b": b", b" folded", b"x y: z"),
        *(b"Expect: 100-continue", b"Connection: upgrade", b"Host: \xff"),
    )
    ended = (
        *(body, b"", b"zz\r\n" + body, b"-1\r\n" + body, b"ffffffffffffffff\r\n" + body),
        *(size + b"\r\n" + body + b"\r\n0\r\n\r\n", size + b"\r\n" + body + b"0\r\n\r\n"),
        *(b"0\r\n\r\n" + body, size + b";a=b\r\n" + body + b"\r\n0\r\nbad\r\n\r\n"),
        size + b"\r\n" + body[:5],
    )

    @st.composite
    def made(draw: st.DrawFn) -> Attempt:
        line = draw(st.sampled_from(start[:1] * 4 + start) | st.binary(max_size=40))
        heads = draw(st.lists(st.sampled_from(framing) | st.binary(max_size=20), max_size=3))
        end = draw(st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")))
        raw = end.join([line, b"Host: fuzz", b"Connection: close", *heads, b"", b""])
        raw += draw(st.sampled_from(ended) | st.binary(max_size=40))
        if draw(st.integers(0, 4)) == 0:
            raw = raw[: draw(st.integers(1, max(1, len(raw))))]
        return Attempt(kind="not HTTP", raw=raw)

    return made()
