"""From a title, a description and a variant to a prompt. Pure functions, apart from what they read of the settings.

Prompts are in English; the title and the summary stay in their own language, between double quotes, as data. What is
said lives in `wording`.
"""

from __future__ import annotations

import html
import inspect
import random
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf
from ..variants import BUILT_IN, own_variants
from .wording import PURPOSES, Style, Wording

#: Built-in variant -> width and height of its picture. `images.variants.aspect_ratio_of` knows the host's as well.
ASPECT_RATIOS: dict[str, tuple[int, int]] = dict(BUILT_IN)

Option = TypeVar("Option")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a provider is asked for, and the choices that were made to get there.

    Attributes:
        text: The whole prompt in one line. It also says what the image must not show.
        negative: What the image must not show, for providers that take that separately.
        style: The name of the chosen visual style.
        seed: The seed of all choices; the same one repeats them.
    """

    text: str
    negative: str
    style: str
    seed: int


class BuildsPrompts(Protocol):
    """What the class in `IMAGES["PROMPT_BUILDER"]` has to offer; it need not inherit from `PromptBuilder`.

    If `build` also takes `context` or `scene`, it gets them where they are not "".
    """

    def build(self, *, title: str, description: str, variant: str, seed: int) -> Prompt:
        """See `PromptBuilder.build`."""


def choose(options: Sequence[Option], *, seed: int, aspect: str) -> Option:
    """One of `options`: the same one for the same seed and aspect, on every machine and version of Python.

    Args:
        options: At least one.
        seed: The image's seed.
        aspect: What is chosen. Each aspect has its own generator, so a host that rewrites one list changes no other
            choice.

    `Random.random()` is used because it is the only method whose sequence Python promises not to change
    (https://docs.python.org/3/library/random.html#notes-on-reproducibility).
    """
    number = random.Random(f"{seed}:{aspect}").random()  # noqa: S311 - nothing secret depends on it
    return options[int(number * len(options))]


class PromptBuilder:
    """Puts the prompt together from small methods. Override any of them, or only the words (`wording`).

    Attributes:
        wording: The words.
        title_limit: How many characters of the title are used at most.
        summary_limit: How many characters a description's or context's summary has at most, the ellipsis included.
        scene_limit: How many characters of a scene are used at most.
        reading_limit: How many characters of a title or a description are read at most.
    """

    wording: ClassVar[Wording] = Wording()
    title_limit: ClassVar[int] = 500
    summary_limit: ClassVar[int] = 220
    scene_limit: ClassVar[int] = 600
    reading_limit: ClassVar[int] = 8000

    def build(
        self, *, title: str, description: str, variant: str, seed: int, context: str = "", scene: str = ""
    ) -> Prompt:
        """The prompt for one image, shorter than 3,000 characters with the standard wording.

        Args:
            title: The article's title, as the caller gave it.
            description: Anything from "" to a whole article, with or without markup and line breaks.
            variant: `hero`, `inline`, or a name from `IMAGES["VARIANTS"]`.
            seed: Any integer. The same one repeats style and hints.
            context: Audience, brand and mood, as the caller gave them. A scene has taken them into account.
            scene: What a text model thought up for this image; it replaces the description's summary.

        Raises:
            ValueError: Neither the wording nor `IMAGES["VARIANTS"]` has an entry for the variant.
        """
        subject = shorten(one_line(title[: self.reading_limit]), self.title_limit) or self.wording.untitled
        style = self.style(seed=seed)
        written = shorten(plain(scene[: self.reading_limit]), self.scene_limit)
        note = "" if written else self.summarise(context)
        parts = (
            self.subject(title=subject, variant=variant),
            self.written_scene(scene=written)
            if written
            else self.scene(title=subject, summary=self.summarise(description)),
            self.note(context=note),
            self.wording.quoting_more if written or note else self.wording.quoting,
            f"Style: {style.look}.",
            self.hints(seed=seed),
            self.framing(variant=variant),
            self.exclusions(),
        )
        text = " ".join(part for part in parts if part)
        return Prompt(text=text, negative=self.negative(), style=style.name, seed=seed)

    def summarise(self, description: str) -> str:
        """The beginning of a description in one plain line, or "" if it has no letter or digit."""
        return shorten(plain(description[: self.reading_limit]), self.summary_limit)

    def subject(self, *, title: str, variant: str) -> str:
        """What the image is about and what it is for. `title` is one line without double quotes."""
        purpose = self._of_variant("purpose", self.wording.purposes, variant)
        return self.wording.subject.format(title=title, purpose=purpose)

    def scene(self, *, title: str, summary: str) -> str:
        """What the image shows: from the summary, or from the title if the summary is ""."""
        if summary:
            return self.wording.scene_from_summary.format(summary=summary)
        return self.wording.scene_from_title.format(title=shorten(title, self.summary_limit))

    def written_scene(self, *, scene: str) -> str:
        """What the image shows, if a text model has thought up a scene. `scene` is one line without double quotes."""
        return self.wording.written_scene.format(scene=scene)

    def note(self, *, context: str) -> str:
        """What the image is to suit, from the context's summary; "" if there is none."""
        return self.wording.context.format(context=context) if context else ""

    def style(self, *, seed: int) -> Style:
        """The visual style of this image."""
        return choose(self.wording.styles, seed=seed, aspect="style")

    def hints(self, *, seed: int) -> str:
        """Mood, detail, palette and camera of this image."""
        return self.wording.hints.format(
            mood=choose(self.wording.moods, seed=seed, aspect="mood"),
            detail=choose(self.wording.details, seed=seed, aspect="detail"),
            palette=choose(self.wording.palettes, seed=seed, aspect="palette"),
            camera=choose(self.wording.cameras, seed=seed, aspect="camera"),
        )

    def framing(self, *, variant: str) -> str:
        """How the picture is framed."""
        return f"Framing: {self._of_variant('framing', self.wording.framings, variant)}."

    def exclusions(self) -> str:
        """What the image must not show, as part of the prompt."""
        return self.wording.exclusions

    def negative(self) -> str:
        """What the image must not show, as a negative prompt."""
        return self.wording.negative

    @staticmethod
    def _of_variant(part: str, words: Mapping[str, str], variant: str) -> str:
        if variant in words:
            return words[variant]
        own = own_variants()
        if variant not in own:
            known = ", ".join([*words, *own])
            raise ValueError(f"There is no wording for the variant {variant!r}, only for: {known}.")
        return str(getattr(own[variant], part))


def get_prompt_builder() -> BuildsPrompts:
    """A new builder of the class that `IMAGES["PROMPT_BUILDER"]` names.

    Raises:
        django.core.exceptions.ImproperlyConfigured: It cannot be imported, or is not a class with a `build` method.
    """
    path = conf.prompt_builder
    spelling = conf.spelling("PROMPT_BUILDER")
    try:
        cls = import_string(path)
    except (ImportError, ValueError) as err:  # import_module raises ValueError for names such as ".Prompts"
        raise ImproperlyConfigured(f"{spelling}: cannot import {path!r}: {err}") from err
    if not (isinstance(cls, type) and callable(getattr(cls, "build", None))):
        raise ImproperlyConfigured(f"{spelling}: {path!r} is not a class with a `build` method.")
    builder: BuildsPrompts = cls()
    return builder


def build_prompt(
    *, title: str, description: str, variant: str, seed: int, context: str = "", scene: str = ""
) -> Prompt:
    """The prompt that the configured builder makes.

    A builder that does not know scenes gets the scene as its description.

    Raises:
        django.core.exceptions.ImproperlyConfigured: See `get_prompt_builder`.
    """
    build: Callable[..., Prompt] = get_prompt_builder().build
    parameters = inspect.signature(build).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    offered = {"context": context, "scene": scene}
    more = {name: text for name, text in offered.items() if text and (takes_any or name in parameters)}
    if scene and "scene" not in more:
        description = scene
    return build(title=title, description=description, variant=variant, seed=seed, **more)


def purpose_of(variant: str) -> str:
    """What images of a variant are for, in the standard wording; the variant itself if nobody has said it."""
    own = own_variants().get(variant)
    return own.purpose if own else PURPOSES.get(variant, variant)


# --- untrusted text made plain -----------------------------------------------------------------------------
#
# One line, no markup, no invisible characters, cut at the end of a word. None of these raises for any string, and
# each takes time in proportion to the length of its argument. Django's `strip_tags` joins words of two paragraphs,
# keeps what is in <style> and raises for deeply nested tags; its `Truncator` cuts through words and emoji.

ELLIPSIS = "…"

_ZERO_WIDTH_JOINER, _ZERO_WIDTH_NON_JOINER = "\u200d", "\u200c"
_DOUBLE_QUOTES = dict.fromkeys(map(ord, '"“”„‟″‶＂〝〞〟'), "'")
#: Invisible selectors for rare ideographs: no reader misses them, and they can hide a message.
_SELECTORS = ("\U000e0100", "\U000e01ef")
_EMOJI_MODIFIERS = ("\U0001f3fb", "\U0001f3ff")
_REGIONAL_INDICATORS = ("\U0001f1e6", "\U0001f1ff")
_HANGUL_VOWELS_AND_FINALS = ("\u1160", "\u11ff")
_THAI_AND_LAO_AM = "\u0e33\u0eb3"
_VIRAMA = 9  # the combining class of the signs that join two consonants of Indic scripts

# Every repetition has a limit or excludes its own start, so no text makes a search slow.
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<!--(?:(?!<!--|-->).)*-->", re.DOTALL), " "),  # HTML comments
    (re.compile(r"<(script|style)\b[^<>]{0,500}>(?:(?!</?(?:script|style)\b).)*</\1\s*>", re.DOTALL | re.I), " "),
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


def plain(text: str) -> str:
    """`text` in one line without markup, or "" if it has no letter or digit."""
    line = one_line(without_markup(text))
    return line if any(map(str.isalnum, line)) else ""


def one_line(text: str) -> str:
    """`text` in one line: composed (NFC), single spaces, no control or invisible characters, no lone surrogates.

    The joiners that emoji and Persian need stay. Double quotes of any shape become single ones, so the result cannot
    leave the double quotes that it is put between.
    """
    return visible_line(text).translate(_DOUBLE_QUOTES)


def visible_line(text: str) -> str:
    """The same with its quotes as they are, for readers."""
    composed = unicodedata.normalize("NFC", text)
    # Each character once: an outline of a whole article has thousands, and some sixty different ones.
    visible = composed.translate({ord(character): _visible(character) for character in set(composed)})
    line = " ".join(visible.split())
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
    """`text` without Markdown's marks for headings, lists, links, emphasis and tables, and without HTML's tags.

    Scripts, style sheets, comments and web addresses go too. Line breaks stay.
    """
    text = "\n".join(text.splitlines())
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return html.unescape(text)


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, the ellipsis included; unchanged if it fits.

    It ends with a whole word, if that keeps at least half of what is allowed. Otherwise (a very long word, or a
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
