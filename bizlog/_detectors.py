"""
What looks like personal data or a secret inside a text. Pure; linear in the text.

Three kinds are known: e-mail addresses, card numbers (13 to 19 digits that pass the
Luhn check) and the shapes of tokens, keys and passwords. Each finding is replaced by
the name of its kind: `[email]`, `[card]`, `[token]`. A text without findings stays the
same object, and what was masked once stays as it is the second time.

Shapes are all that can be seen: names, addresses and telephone numbers have none.

Every pattern begins with something rare, repeats only what its next part cannot begin
with, and is compiled at its first use: most processes never need one.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# A text with its findings replaced, and how many there were.
Masked: TypeAlias = "tuple[str, int]"
Detector: TypeAlias = "Callable[[str], Masked]"

# What is replaced may have hidden what touches it, so there is another look.
_MAX_ROUNDS = 4

_compiled = cache(re.compile)


def scrub(text: str) -> str:
    """Replace everything that any detector finds."""
    return mask(text, DETECTORS.values())[0]


def mask(text: str, detectors: Iterable[Detector]) -> Masked:
    """Replace what some detectors find, each in what the one before it left."""
    chosen, found = list(detectors), 0
    for _ in range(_MAX_ROUNDS):
        before = found
        for detector in chosen:
            text, more = detector(text)
            found += more
        if found == before:
            break
    return text, found


# E-mail addresses

# From the @ on; a last part with a digit (`left-pad@1.3.0`) is a version.
_AT_DOMAIN = (
    r"(?:@|\uff20|%40)(?:[\w-]{1,63}\.)+(?:xn--[0-9A-Za-z-]{1,59}|[^\W\d_]{2,63})"
)
# Read backwards from the @, so that a long text before it is not tried at each letter.
_LOCAL_PART_BACKWARDS = r"(?:[^\s@<>()\[\]{},;:\"'`=&?/\\|]|'(?=\w))+"
# RFC 5321 has 64; a percent sign makes three of one.
_MAX_LOCAL_PART = 192


def mask_emails(text: str) -> Masked:
    """Replace e-mail addresses, percent-encoded ones and all scripts included."""
    if "@" not in text and "%40" not in text and "\uff20" not in text:
        return text, 0
    spans: list[tuple[int, int]] = []
    done = 0
    for domain in _compiled(_AT_DOMAIN).finditer(text):
        at = domain.start()
        before = text[max(done, at - _MAX_LOCAL_PART) : at][::-1]
        if local := _compiled(_LOCAL_PART_BACKWARDS).match(before):
            done = domain.end()
            spans.append((at - local.end(), done))
    return _replaced(text, spans, "[email]")


# Card numbers

_MIN_CARD, _MAX_CARD = 13, 19
# Digits with single spaces or hyphens between them, enough for a card.
_CARD_RUN = r"[0-9](?:[ \u00a0-]?[0-9]){12,}"
# What the industries of payment cards begin with; a time in milliseconds begins with 1.
_FIRST_DIGITS = frozenset("23456")
_HEX = frozenset("0123456789abcdefABCDEF")
_WORD = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_MAX_WORD = 128


def mask_cards(text: str) -> Masked:
    """Replace card numbers, whatever groups their digits stand in."""
    spans: list[tuple[int, int]] = []
    for run in _compiled(_CARD_RUN).finditer(text):
        if len(run[0]) > _MAX_CARD and run[0].isdecimal():
            continue  # one group, too long
        for start, end in _luhn_valid(run[0]):
            span = run.start() + start, run.start() + end
            if not _is_part_of_code(text, *span):
                spans.append(span)
    return _replaced(text, list(_merged(spans)), "[card]")


def _luhn_valid(run: str) -> Iterator[tuple[int, int]]:
    """Find stretches of whole groups with the length and check digit of a card."""
    places = [place for place, sign in enumerate(run) if sign.isdecimal()]
    gaps = {n for n in range(1, len(places)) if places[n] - places[n - 1] > 1}
    ends = gaps | {len(places)}
    sums = _luhn_sums([int(run[place]) for place in places])
    for start in sorted(gaps | {0}):
        if run[places[start]] not in _FIRST_DIGITS:
            continue
        longest = min(start + _MAX_CARD, len(places))
        for end in range(start + _MIN_CARD, longest + 1):
            total = sums[end % 2]
            if end in ends and (total[end] - total[start]) % 10 == 0:
                yield places[start], places[end - 1] + 1


def _luhn_sums(digits: list[int]) -> tuple[list[int], list[int]]:
    """
    Sum up to each digit, with every other one doubled and its own digits added.

    Which ones are doubled is counted from the end, so there are two: for stretches that
    end before an even and before an odd place.
    """
    doubled = [int("0246813579"[digit]) for digit in digits]
    mixed = list(digits), list(digits)
    mixed[0][::2] = doubled[::2]
    mixed[1][1::2] = doubled[1::2]
    even, odd = (list(accumulate(each, initial=0)) for each in mixed)
    return even, odd


def _is_part_of_code(text: str, start: int, end: int) -> bool:
    """Whether digits stand inside a UUID or among the letters of a hexadecimal word."""
    before, after = text[max(0, start - _MAX_WORD) : start], text[end : end + _MAX_WORD]
    letters = _last_word(before, _WORD) + _first_word(after, _WORD)
    if letters and _HEX.issuperset(letters):
        return True
    left, right = _last_word(before, f"{_WORD}-"), _first_word(after, f"{_WORD}-")
    return _compiled(_UUID).fullmatch(f"{left}{text[start:end]}{right}") is not None


def _last_word(text: str, signs: str) -> str:
    return text[len(text.rstrip(signs)) :]


def _first_word(text: str, signs: str) -> str:
    return text[: len(text) - len(text.lstrip(signs))]


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join stretches that overlap: which of them is the card, no one can say."""
    begin = end = -1
    for start, stop in sorted(spans):
        if start >= end:
            if begin >= 0:
                yield begin, end
            begin = start
        end = max(end, stop)
    if begin >= 0:
        yield begin, end


# Tokens, keys, passwords

# In each pattern the group `name`, if there is one, stays.
_PEM = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"(?:.*?-----END [A-Z ]{0,30}PRIVATE KEY-----|.*)"
)
# A word behind `Bearer` is a token when it is long or has a digit.
_BEARER = (
    r"(?P<name>(?<![A-Za-z])[Bb][Ee][Aa][Rr][Ee][Rr](?:\s|%20)+)"
    r"(?:(?=[\w.~+/=:-]*[0-9])[\w.~+/=:-]{8,}|[\w.~+/=:-]{16,})"
)
# From the first `eyJ` of a word on, so that no word is read more than once.
_JWT = (
    r"(?<![\w-])(?P<name>(?:(?!eyJ)[\w-])*+)"
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,3}"
)
_USER_IN_URL = r"(?P<name>://[^\s/:@]*:)(?!\[token\]@)[^\s/@]+(?=@)"
# Azure's shared access signatures.
_SIGNATURE = r"(?P<name>(?<![A-Za-z])sig=)[\w%+/=.-]{16,}"
# Connection strings and JSON. The value is not masked already; it is quoted, or goes up
# to a semicolon near by, or is one word.
_ASSIGNMENT = (
    r"(?P<name>(?i:passw(?:or)?d|passphrase|pwd|secret|(?:api|account|access)[_-]?key"
    r"|(?:access|refresh|auth|id)[_-]?token)(?:[\"']\s*+:|\s*+=(?!=))\s*+)"
    r"(?!\[token\])"
    r"(?:\"[^\"]+\"|'[^']+'|[^;\"'\r\n]{1,128}?(?=;)|[\"']?[^;&\s\"',}]+)"
)
_PREFIXES = (
    r"gh[oprsu]_\w{20,}",  # GitHub
    r"github_pat_\w{20,}",
    r"glpat-[\w-]{16,}",  # GitLab
    r"xox[abeoprs]-[\w-]{10,}",  # Slack
    r"xapp-[\w-]{10,}",
    r"[rs]k_(?:live|test)_\w{10,}",  # Stripe
    r"whsec_\w{16,}",
    r"sk-[\w-]{20,}",  # OpenAI and others
    r"AIza[\w-]{30,}",  # Google
    r"hf_[A-Za-z0-9]{20,}",  # Hugging Face
    r"npm_[A-Za-z0-9]{30,}",
    r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    r"A(?:KI|SI|BI|CC|GP|ID|IP|NP|NV|RO|PK|SC)A[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
)
_PREFIXED = rf"(?<![A-Za-z])(?:{'|'.join(_PREFIXES)})"

# Without any of these there is no token: so most texts are done with at once.
_HINT = r"[=:_.-]|[Bb][Ee][Aa][Rr]|A[A-Z]{2}A|AIza"
# Of these words one must stand in the lower-cased text.
_TOKENS = (
    (("private key-----",), _PEM),
    (("bearer",), _BEARER),
    (("eyj",), _JWT),
    (("://",), _USER_IN_URL),
    (("pass", "pwd", "secret", "key", "token"), _ASSIGNMENT),
    (("sig=",), _SIGNATURE),
    (("_", "-", "sg.", "a"), _PREFIXED),
)


def mask_tokens(text: str) -> Masked:
    """Replace tokens, keys and passwords; the words that introduce them stay."""
    if _compiled(_HINT).search(text) is None:
        return text, 0
    lowered, found = text.lower(), 0
    for marks, pattern in _TOKENS:
        if any(mark in lowered for mark in marks):
            known = _compiled(pattern, re.ASCII | re.DOTALL)
            text, more = known.subn(_named_token, text)
            found += more
    return text, found


def _named_token(match: re.Match[str]) -> str:
    return f"{match.groupdict().get('name', '')}[token]"


def _replaced(text: str, spans: list[tuple[int, int]], by: str) -> Masked:
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += text[done:start], by
        done = end
    return ("".join([*parts, text[done:]]) if spans else text), len(spans)


# Tokens first: the password in a URL stands before an @.
DETECTORS: dict[str, Detector] = {
    "token": mask_tokens,
    "card": mask_cards,
    "email": mask_emails,
}
