"""Inputs that are nearly right: what a target understands, made by its grammar, then spoiled here and there.

Random bytes end at the first check; these come through most of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from tests.fuzz.grammar import config, control, guard_side, guard_socket, webhook
from tests.fuzz.grammar.spoil import spoiled, weighted

MODULES = {
    "config": config,
    "webhook": webhook,
    "guard-socket": guard_socket,
    "guard-side": guard_side,
    "control-socket": control,
}

WORDS: Mapping[str, Sequence[bytes]] = {name: module.WORDS for name, module in MODULES.items()}
"""What each target's language is made of."""

INPUTS: Mapping[str, st.SearchStrategy[bytes]] = {
    name: weighted(
        (4, module.DOCUMENTS), (3, spoiled(module.DOCUMENTS, module.WORDS)), (1, st.binary(max_size=200))
    )
    for name, module in MODULES.items()
}
