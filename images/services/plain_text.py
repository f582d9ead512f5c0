"""Other people's text made plain: one line, no markup, no invisible characters, cut where a reader would cut it.

Pure functions. None raises for any string, and each takes time in proportion to the length of its argument.
"""

from __future__ import annotations

import html
import re
import unicodedata

ELLIPSIS = "…"

_ZERO_WIDTH_JOINER, _ZERO_WIDTH_NON_JOINER = "\u200d", "\u200c"
_DOUBLE_QUOTES = dict.fromkeys(map(ord, '"“”„‟″‶＂〝〞〟'), "'")
#: Invisible selectors for rare ideographs: nobody misses them, and hidden messages are written in them.
_SELECTORS = ("\U000e0100", "\U000e01ef")
_EMOJI_MODIFIERS = ("\U0001f3fb", "\U0001f3ff")
_REGIONAL_INDICATORS = ("\U0001f1e6", "\U0001f1ff")
_HANGUL_VOWELS_AND_FINALS = ("\u1160", "\u11ff")
_THAI_AND_LAO_AM = "\u0e33\u0eb3"
_VIRAMA = 9  # the combining class of the signs that join two consonants of Indic scripts

# Every repetition has a limit or excludes its own start, so that no text makes a search slow.
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!\[[^\[\]]{0,300}\]\([^()]{0,1000}\)"), " "),  # images
    (re.compile(r"\[([^\[\]]{1,300})\]\([^()]{0,1000}\)"), r"\1"),  # links
    (re.compile(r"<[a-zA-Z/!][^<>]{0,500}>"), " "),  # HTML tags
    (re.compile(r"(?:https?://|www\.)[!-~]+"), " "),  # addresses
    (re.compile(r"^[-=_*|:+ \t]{3,}$", re.MULTILINE), " "),  # rules, underlined headings, edges of tables
    (re.compile(r"^[ \t]{0,12}(?:#{1,6}[ \t]+|>[ \t]?|[-*+•][ \t]+|\d{1,3}[.)][ \t]+)+", re.MULTILINE), ""),
    (re.compile(r"\|"), " "),
    (re.compile(r"`+|\*\*+|__+|~~+"), ""),
    (re.compile(r"(?<!\w)[*_](?=\w)|(?<=[\w.,;:!?)])[*_](?!\w)"), ""),  # *emphasis*, but not 2 * 3 or snake_case
)


def one_line(text: str) -> str:
    """`text` in one line: composed (NFC), single spaces, no control or invisible characters, no lone surrogates.

    Joiners that emoji and Persian need stay. Double quotes of any shape become single ones, so that the result can
    stand between double quotes and not leave them.
    """
    kept = (_visible(character) for character in unicodedata.normalize("NFC", text))
    line = " ".join("".join(kept).translate(_DOUBLE_QUOTES).split())
    return line.strip(f" {_ZERO_WIDTH_JOINER}{_ZERO_WIDTH_NON_JOINER}")  # alone they would be an invisible text


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp"}:
        return " "
    if character in {_ZERO_WIDTH_JOINER, _ZERO_WIDTH_NON_JOINER}:
        return character
    return "" if category in {"Cf", "Cs", "Co"} or _within(character, _SELECTORS) else character


def _within(character: str, ends: tuple[str, str]) -> bool:
    return ends[0] <= character <= ends[1]


def without_markup(text: str) -> str:
    """`text` without what Markdown and HTML add to words: signs for headings, lists, links, emphasis, tables, tags.

    Addresses of pages and pictures go too. Line breaks stay.
    """
    text = "\n".join(text.splitlines())
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return html.unescape(text)


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, the ellipsis included; unchanged where it fits.

    It ends where a word ends, if that keeps at least half of what is allowed. Otherwise (a very long word, or a
    script without spaces) it ends between two letters as readers see them: accents, joined emoji and flags stay
    whole.
    """
    if len(text) <= limit:
        return text
    end = limit - len(ELLIPSIS)
    space = text.rfind(" ", 0, end + 1)
    if space >= limit // 2:
        end = space
    else:
        end = next((at for at in range(end, limit // 2, -1) if _between_letters(text, at)), end)
    return text[:end].rstrip(" ,.;:!?-–—(…") + ELLIPSIS


def _between_letters(text: str, at: int) -> bool:
    """Whether a reader sees two letters (or emoji) on the two sides of `at`. A short form of Unicode's UAX #29."""
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M" or after in _THAI_AND_LAO_AM:
        return False
    if _ZERO_WIDTH_JOINER in (before, after) or unicodedata.combining(before) == _VIRAMA:
        return False
    if _within(after, _EMOJI_MODIFIERS) or _within(after, _HANGUL_VOWELS_AND_FINALS):
        return False
    if not _within(after, _REGIONAL_INDICATORS):
        return True
    start = at
    while start and _within(text[start - 1], _REGIONAL_INDICATORS):
        start -= 1
    return (at - start) % 2 == 0  # flags are pairs
