"""What looks like an e-mail address, a card number or a token, and what does not."""

from __future__ import annotations

import time
import uuid

import pytest

from bizlog._detectors import DETECTORS, scrub

EMAIL = "jane.doe@example.com"
CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (EMAIL, "[email]"),
        ("mail jane+news@mail.example.co.uk!", "mail [email]!"),
        ("Jane <jane@example.com>, Joe <joe@example.com>", "Jane <[email]>, Joe <[email]>"),
        ("to=jane%40example.com&x=1", "to=[email]&x=1"),
        ("o'brien@example.com", "[email]"),
        ("'jane@example.com'", "'[email]'"),
        ('{"m":"jane@example.com"}', '{"m":"[email]"}'),
        ("müller@bücher.example", "[email]"),
        ("jane@xn--bcher-kva.xn--p1ai", "[email]"),
        ("jane\uff20example.com", "[email]"),
        ("mailto:jane@example.com", "mailto:[email]"),
        ("a@b@example.com", "a@[email]"),
    ],
)  # fmt: skip
def test_email_addresses_are_found(text, masked):
    """Wherever they stand; the text around them stays."""
    assert DETECTORS["email"](text)[0] == masked


@pytest.mark.parametrize(
    "text", ["left-pad@1.3.0", "me@home", "@handle", "a @ b.com", "4 @ 9.99", "@a.com"]
)
def test_not_every_at_is_an_address(text):
    """Versions, handles and prices stay."""
    assert DETECTORS["email"](text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("4111111111111111", "[card]"),
        (CARD, "[card]"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111\u00a01111\u00a01111\u00a01111", "[card]"),
        ("3782 822463 10005", "[card]"),
        ("5555555555554444", "[card]"),
        ("6011 1111 1111 1117", "[card]"),
        ("4222222222222", "[card]"),
        ("card:4111111111111111.", "card:[card]."),
        ("card4111111111111111", "card[card]"),
        ("卡号4111111111111111", "卡号[card]"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card]"),
        ("4111111111111111 5555555555554444", "[card] [card]"),
        ("4111111111111111, 4222222222222", "[card], [card]"),
    ],
)
def test_card_numbers_are_found(text, masked):
    """13 to 19 digits with a right check digit, however they are grouped."""
    assert DETECTORS["card"](text)[0] == masked


def test_a_card_number_beside_other_numbers_is_found():
    """No digit of it is left, though no one can say where it begins."""
    masked, found = DETECTORS["card"](f"order 42 {CARD} 3 items")

    assert found == 1
    assert "1111" not in masked
    assert masked.endswith("items")


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # the check digit is wrong
        "41111111111111112222",  # 20 digits
        "411111111111",  # 12 digits
        "1764066305000",  # a time in milliseconds
        "0000000000000000",
        "9f4111111111111111",
        "4111111111111111a0ff",
        "41111111-1111-4111-8111-111111111111",
        "4111.1111.1111.1111",
    ],
)
def test_not_every_long_number_is_a_card(text):
    """Times, UUIDs and hexadecimal words stay."""
    assert DETECTORS["card"](text) == (text, 0)


def test_every_digit_counts_for_the_check():
    """Any single wrong digit makes it no card."""
    number = "4539578763621486"
    for place, digit in enumerate(number):
        other = str((int(digit) + 1) % 10)
        wrong = number[:place] + other + number[place + 1 :]
        assert DETECTORS["card"](wrong) == (wrong, 0)
    assert DETECTORS["card"](number) == ("[card]", 1)


LETTERS = "aB3" * 12


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xx.s1gn-at_ure", "[token]"),
        (f"Authorization: Bearer {LETTERS}", "Authorization: Bearer [token]"),
        ("bearer abcd1234", "bearer [token]"),
        ("AKIA" + "ABCDEFGH12345678", "[token]"),
        ("id ASIA" + "ABCDEFGH12345678 used", "id [token] used"),
        (f"ghp_{LETTERS}", "[token]"),
        (f"github_pat_{LETTERS}", "[token]"),
        (f"glpat-{LETTERS}", "[token]"),
        ("xoxb-" + "123456789012-abcdef", "[token]"),
        ("sk_live_" + LETTERS, "[token]"),
        ("rk_test_" + LETTERS, "[token]"),
        (f"sk-{LETTERS}", "[token]"),
        (f"key sk-proj-{LETTERS}.", "key [token]."),
        (f"AIza{LETTERS}", "[token]"),
        (f"SG.{LETTERS}.{LETTERS}", "[token]"),
        (
            "Endpoint=sb://n/;SharedAccessKeyName=Root;SharedAccessKey=aB+/c=;EntityPath=e",
            "Endpoint=sb://n/;SharedAccessKeyName=Root;SharedAccessKey=[token];EntityPath=e",
        ),
        ("AccountName=n;AccountKey=aB+/c==", "AccountName=n;AccountKey=[token]"),
        ("?sv=2024&sig=aB%2Fc12345678901%3D&se=1", "?sv=2024&sig=[token]&se=1"),
        ("Server=s;Password=my secret;Db=d", "Server=s;Password=[token];Db=d"),
        ("Server=s;Pwd=hunter2", "Server=s;Pwd=[token]"),
        ("password='it is' x", "password=[token] x"),
        ("api_key = k1 and", "api_key = [token] and"),
        ('{"client_secret": "a b"}', '{"client_secret": [token]}'),
        ("postgres://bob:s3cret@db/x", "postgres://bob:[token]@db/x"),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b",
            "a [token] b",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMII", "[token]"),
    ],
)  # fmt: skip
def test_tokens_are_found(text, masked):
    """By their shape or by the word before them, which stays."""
    assert DETECTORS["token"](text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of bad news",
        "bearer authentication failed",
        "tokens_used = 5",
        "keyboard=black",
        "if password == None",
        "risk-assessment-of-a-very-long-product-name",
        "ASIAPACIFIC",
        "https://example.com:8080/path",
        "eyJ",
        "-----BEGIN CERTIFICATE-----",
        str(uuid.UUID(int=2**100)),
    ],
)
def test_not_every_word_is_a_token(text):
    """Sentences, slugs and URLs stay."""
    assert DETECTORS["token"](text) == (text, 0)


@pytest.mark.parametrize(
    "unit",
    ["a", "@", "a@", "@a.", "'@a", "%40", "4", "4 ", "44-", "4111111111111111 ",
     "eyJ", ".eyJabcdefgh", "bearer ", "bearer\t", "pwd=", 'pwd="', "pwd='pwd=\"",
     "key= ", "password ", "-----BEGIN PRIVATE KEY-----", "://", "://a:", "sig=",
     "sk-", "-sk-a ", "SG.", " ghp_", "gh", "_"],
)  # fmt: skip
def test_detectors_take_time_in_proportion_to_the_text(unit):
    """Four times the text takes about four times as long, not sixteen."""

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        taken: list[float] = []
        for _ in range(3):
            start = time.process_time()
            scrub(text)
            taken.append(time.process_time() - start)
        return min(taken)

    # The summand is what the clock cannot tell from nothing.
    assert seconds(256 * 1024) < 9 * seconds(64 * 1024) + 0.005


def test_a_text_without_findings_stays_the_same_object():
    """Nothing is copied for nothing."""
    text = "Contoso Catnip's Friend, 4 @ 9.99 (sku 4111-2)"
    assert scrub(text) is text
