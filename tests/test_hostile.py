"""Bad files for every reader: a value or one clear line, never anything else.

The generator is seeded. A longer run by hand: python -m tests.hostile --cases=20000 --seed=1
"""

from tests import hostile
from tests.hostile_readers import make_readers

CASES = 1_500


def test_every_reader_answers_with_a_value_or_a_line(tmp_path):
    readers = make_readers(tmp_path)
    ends, failures, _ = hostile.run(readers, CASES, seed=0)
    assert not failures, "\n\n".join(f"{f.reader}, case {f.case}:\n{f.text}" for f in failures[:5])
    # Damage that no reader notices, or that each refuses, would show nothing.
    assert sum(counts["line"] for counts in ends.values()) > CASES / 3
    assert sum(counts["value"] for counts in ends.values()) > CASES / 20
