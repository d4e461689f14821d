"""What is known of a remote class's methods."""

from __future__ import annotations

import inspect

import pytest

from runtime.signatures import constructor_of, methods_of


class Kinds:
    def plain(self, value):
        yield value

    @classmethod
    def of_class(cls, value):
        yield value

    @staticmethod
    def static(value):
        yield value


class Special:
    attribute = 1

    def __init__(self, value):
        self.value = value

    def __call__(self):
        return self.value

    def __len__(self):
        return self.value

    def __del__(self):
        pass


def test_special_methods_of_its_own_can_be_called() -> None:
    assert {"__call__", "__len__"} == set(methods_of(Special))
    assert set(methods_of(Kinds)) == {"plain", "of_class", "static"}


@pytest.mark.parametrize("name", ["plain", "of_class", "static"])
def test_the_function_behind_a_method_is_known_however_it_is_bound(name) -> None:
    spec = methods_of(Kinds)[name]
    assert inspect.isgeneratorfunction(spec.function)
    assert str(spec.signature) == "(value)"


def test_messages_show_signatures_without_what_is_returned() -> None:
    class Typed:
        def method(self, value: int) -> int:
            return value

    with pytest.raises(TypeError, match=r"^Typed\.method\(value: 'int'\) does not take \(\): miss"):
        methods_of(Typed)["method"].check((), {})
    with pytest.raises(TypeError, match=r"^Typed\.__init__\(\) does not take \(int\): too many"):
        constructor_of(Typed).check((1,), {})
