"""The message of an unknown name: the nearest name, and never a page of names."""

from robustode.errors import LONG_LIST, AttackError, unknown


def test_short_lists_are_complete():
    error = unknown("suite", "standart", ["standard", "minimal"], AttackError)
    assert isinstance(error, AttackError)
    assert str(error) == "unknown suite: expected one of minimal, standard, got 'standart'. Did you mean 'standard'?"
    assert str(unknown("suite", "x", [])) == "unknown suite: expected one of (none), got 'x'"


def test_long_lists_are_not():
    names = [f"attack-{i:02d}" for i in range(40)]
    near = str(unknown("attack", "attack-7", names))
    assert near.startswith("unknown attack: expected 'attack-")
    assert "or another (40 names), got" in near
    far = str(unknown("attack", "qqqq", names))
    assert far.count("attack-") == LONG_LIST
    assert "... (40 names)" in far
