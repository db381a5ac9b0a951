"""Rule tables: which rule treats which step."""

from onnxlrp.tables.library import preset_names, preset_text
from onnxlrp.tables.match import match
from onnxlrp.tables.model import Entry, RuleTable, StepFacts
from onnxlrp.tables.parse import load_table, parse_table

__all__ = [
    "Entry",
    "RuleTable",
    "StepFacts",
    "load_table",
    "match",
    "parse_table",
    "preset_names",
    "preset_text",
]
