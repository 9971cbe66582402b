"""Token ids → text as they come; and the text and bytes of single tokens, for logprobs.

    detokenizer = Detokenizer(decode)
    detokenizer.feed([12, 7])     # the text that is certain now
    detokenizer.finish()          # what is left of a half character

Neither decoding each token alone nor decoding everything again will do: a token may hold a part of
a character, some tokenizers drop the space before the first token, and decoding everything again
costs the square of the length. So new ids are decoded behind one earlier token, which is known to
be text, and a half character waits for its rest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Decode = Callable[[Sequence[int]], str]

BROKEN = "\ufffd"
"""What decoders write for bytes that are no character, or not yet."""
HALF = 3
"""Most bytes of an unfinished character; decoders write one BROKEN for all of them, or one each."""
WINDOW = 16
"""More tokens than this without a whole character at the end are not held; it is nonsense."""


class Detokenizer:
    """Text of one run of tokens. It is the same however the ids are grouped.

    It is also what decoding all ids at once gives, except where a tokenizer with byte fallback
    reads bytes that form no characters: the number of U+FFFD may differ there.
    """

    def __init__(self, decode: Decode, before: Sequence[int] = ()) -> None:
        """`before`: ids of a prompt that the text continues, so that its first space is kept."""
        self._decode = decode
        self._held: list[int] = []
        """Ids whose text is not all out yet."""
        self._shown = 0
        """Letters of their text that are out."""
        self._half = ""
        """Their text that is not out."""
        self._anchor: list[int] = []
        self._skip = 0
        """Letters of the anchor's text."""
        self._first = not before
        for token in reversed(before[-WINDOW:]):
            if self._anchored(token, decode([token])):
                break

    def feed(self, ids: Sequence[int]) -> str:
        """The text that is certain by now. Costs one call of decode where characters are whole."""
        out: list[str] = []
        at = 0
        while at < len(ids) and not self._anchor:
            out.append(self._step(ids[at]))
            at += 1
        for end in (len(ids), len(ids) - HALF):  # the last tokens may be half a character
            if end > at + 1 and (text := self._whole(ids[at:end])) is not None:
                out.append(text)
                at = end
        out.extend(self._step(token) for token in ids[at:])
        return "".join(out)

    def finish(self, *, complete: bool = True) -> str:
        """Nothing more comes: half a character as U+FFFD, or nothing where it was cut off."""
        half, self._half = self._half, ""
        self._held, self._shown = [], 0
        return half if complete else ""

    def copy(self) -> "Detokenizer":
        """One that goes on from here by itself."""
        other = Detokenizer(self._decode)
        vars(other).update(vars(self), _held=[*self._held])
        return other

    def _text(self, ids: Sequence[int]) -> str:
        return self._decode([*self._anchor, *ids])[self._skip :]

    def _whole(self, ids: Sequence[int]) -> str | None:
        """Text of many tokens in one call; None if there are broken characters among them."""
        if self._shown:
            return None
        text = self._text([*self._held, *ids])
        if BROKEN in text:
            return None
        self._held, self._half = [], ""
        return text

    def _step(self, token: int) -> str:
        if not (self._anchor or self._first):
            self._anchored(token, self._decode([token]))
        self._held.append(token)
        text = self._text(self._held)
        out = ""
        if len(self._held) > WINDOW:
            out, text = self._shorten(text)
        run = len(text) - len(text.rstrip(BROKEN))
        sure = len(text) - min(run, HALF)
        out += text[self._shown : sure]
        self._shown, self._half = max(self._shown, sure), text[sure:]
        if run == 0 and (text or self._anchor):  # without an anchor, an empty text may be a space
            if self._first and len(self._held) == 1:
                self._anchored(token, text)
            self._first = self._first and not text
            self._held, self._shown = [], 0
        return out

    def _anchored(self, token: int, text: str) -> bool:
        """Take this token as the anchor if `text`, its own, shows it to be text."""
        # a lone space may be dropped as the first token and so look like a token that is left out
        if BROKEN not in text and (text or self._decode([token, token])):
            self._anchor, self._skip = [token], len(text)
        return bool(self._anchor)

    def _shorten(self, text: str) -> tuple[str, str]:
        """(what is certain to go out, text of the ids still held), to bound what is decoded."""
        head, tail = self._held[: -HALF - 1], self._held[-HALF - 1 :]
        done, rest = self._text(head), self._text(tail)
        if done + rest != text:  # a character lies across; the next token moves the cut
            return "", text
        out = text[self._shown : len(done)]
        self._held, self._shown = tail, max(0, self._shown - len(done))
        return out, rest


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenText:
    """One token by itself."""

    text: str
    """U+FFFD where its bytes are only a part of a character."""
    bytes: bytes


def token_texts(
    ids: Iterable[int], piece: Callable[[int], str], *, byte_level: bool
) -> list[TokenText]:
    """Each token by itself, control tokens by their names.

    `piece` gives a token as the vocabulary writes it (tokenizer.convert_ids_to_tokens).
    """
    raws = (_bytes(piece(token), byte_level=byte_level) for token in ids)
    return [TokenText(text=raw.decode(errors="replace"), bytes=raw) for raw in raws]


def is_byte_level(tokenizer: Any) -> bool:
    """Whether the vocabulary writes bytes as GPT-2's does; else as SentencePiece does."""
    decoder = tokenizer.backend_tokenizer.decoder
    return decoder is not None and b"ByteLevel" in decoder.__getstate__()


def _bytes(piece: str, *, byte_level: bool) -> bytes:
    if byte_level:
        known = [_BYTES.get(letter) for letter in piece]
        whole = [byte for byte in known if byte is not None]
        return bytes(whole) if len(whole) == len(known) else piece.encode()
    if len(piece) == len("<0xE3>") and piece.startswith("<0x") and piece.endswith(">"):
        return bytes.fromhex(piece[3:5])
    return piece.replace("▁", " ").encode()


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: itself where it prints, else one from U+0100 on, in order."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    letters = {chr(byte): byte for byte in printing}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_letters()
