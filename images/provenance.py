"""Where a picture comes from, in the words of the IPTC's NewsCodes: https://cv.iptc.org/newscodes/digitalsourcetype/.

C2PA manifests, schema.org and the metadata that search engines read name the same terms.
"""

from __future__ import annotations

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"

#: Made by a model that was trained on sampled content: what providers of generative AI deliver.
TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"
#: Made by an algorithm without any sampled training data: what the placeholder draws.
ALGORITHMIC_MEDIA = "algorithmicMedia"

#: The terms that mean generative AI: it made the picture, or parts of it.
_AI = {TRAINED_ALGORITHMIC_MEDIA, "compositeWithTrainedAlgorithmicMedia"}


def source_uri(term: str) -> str:
    """The address that stands for a term of the vocabulary; "" for ""."""
    return f"{VOCABULARY}{term}" if term else ""


def is_ai_generated(term: str) -> bool | None:
    """Whether a term means generative AI; `None` for "", since then nobody knows."""
    return term in _AI if term else None
