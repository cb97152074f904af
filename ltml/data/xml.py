"""Read XML that others wrote: no document type, so no entity, and a bounded size."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element

from ltml.core.errors import InputError
from ltml.core.files import read_text


def parse(path: str | Path, *, limit: int) -> Element:
    """Parse an XML file.

    A document type is refused before parsing, so no entity can be declared, let alone expand.

    Args:
        path: the file.
        limit: bytes that it has at most.

    Returns:
        The root element.

    Raises:
        InputError: naming the file, if it is too large, no XML, or declares a document type.
    """
    text = read_text(path, limit=limit)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares a document type or an entity; remove the declaration")
    try:
        # From text, not bytes: an encoding that the file declares cannot hide anything from us.
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path} is not well-formed XML: {error}") from None
