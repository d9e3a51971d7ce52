"""What ships to nodes in place of ``dataclasses`` and ``typing``: as much of them as our own modules need there.

Importing those two, and the code that ``dataclasses`` generates for every class, is a third of all that an agent costs;
here a class takes microseconds. `testbed.agent.archive` redirects the imports of what it sends; nothing else does.
"""

from __future__ import annotations

MISSING = object()


class FrozenInstanceError(AttributeError):
    """A frozen value was to be changed."""


class Field:
    """One field of a class: its name, the type as written, what it is where nothing is given, whether it is shown."""

    def __init__(self, default: object, factory: object, shown: bool) -> None:
        self.name, self.type = "", ""
        self.default, self.factory, self.shown = default, factory, shown


def field(*, default: object = MISSING, default_factory: object = MISSING, repr: bool = True) -> object:
    """Describe a field that needs more than a type and a default."""
    return Field(default, default_factory, repr)


def dataclass(cls: type | None = None, *, frozen: bool = False) -> object:
    """Make ``cls`` a class of values: made by position or name, equal by content, unchangeable where ``frozen``."""
    if cls is None:
        return lambda decorated: dataclass(decorated, frozen=frozen)
    declared = {f.name: f for base in reversed(cls.__mro__[1:]) for f in vars(base).get("__fields__", ())}
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if annotation.startswith("ClassVar"):
            continue
        given = vars(cls).get(name, MISSING)
        one = given if isinstance(given, Field) else Field(given, MISSING, True)
        one.name, one.type = name, annotation
        declared[name] = one
        if one.default is not MISSING:
            setattr(cls, name, one.default)
        elif given is one:
            delattr(cls, name)
    made = tuple(declared.values())
    methods = {"__init__": _init(cls.__name__, made), "__eq__": _equal, "__repr__": _show}
    methods["__hash__"] = _hash if frozen else None
    for name, method in methods.items():
        if name not in vars(cls) or (name == "__hash__" and vars(cls)[name] is None):
            setattr(cls, name, method)
    if frozen:
        cls.__setattr__, cls.__delattr__ = _refuse, _refuse  # type: ignore[method-assign, assignment]
    cls.__fields__ = made  # type: ignore[attr-defined]
    return cls


def fields(value: object) -> tuple[Field, ...]:
    """The fields of a class of values, or of a value, in their order."""
    return value.__fields__  # type: ignore[attr-defined, no-any-return]


def replace(value: object, **changed: object) -> object:
    """The same value with some of its fields changed; raises TypeError for a field that it does not have."""
    return type(value)(**{**value.__dict__, **changed})


def asdict(value: object) -> object:
    """A value as dictionary of its fields, all within it likewise; lists and dictionaries are copied."""
    if hasattr(type(value), "__fields__"):
        return {f.name: asdict(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {asdict(k): asdict(v) for k, v in value.items()}
    return type(value)(map(asdict, value)) if isinstance(value, (list, tuple)) else value


def _init(kind: str, declared: tuple[Field, ...]) -> object:
    names = tuple(f.name for f in declared)

    def __init__(self: object, *values: object, **named: object) -> None:
        content = self.__dict__
        content.update(zip(names, values))
        for one in declared[len(values) :]:
            if one.name in named:
                content[one.name] = named.pop(one.name)
            elif one.default is not MISSING:
                content[one.name] = one.default
            elif one.factory is not MISSING:
                content[one.name] = one.factory()  # type: ignore[operator]
            else:
                raise TypeError(f"{kind} needs {one.name}")
        if named or len(values) > len(names):
            raise TypeError(f"{kind} takes {', '.join(names) or 'nothing'} only")
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    return __init__


def _content(value: object) -> tuple[object, ...]:
    return tuple([getattr(value, f.name) for f in fields(value)])


def _equal(self: object, other: object) -> object:
    return _content(self) == _content(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_content(self))


def _show(self: object) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.shown)
    return f"{type(self).__qualname__}({shown})"


def _refuse(self: object, name: str, *_: object) -> None:
    raise FrozenInstanceError(f"{name} of a {type(self).__name__} cannot be changed")


TYPE_CHECKING = False


class Protocol:
    """What a protocol is derived from, which nothing asks at run time."""


class _Type:
    """Any type, of anything."""

    def __getitem__(self, _: object) -> _Type:
        return self


_TYPE = _Type()


def TypeVar(_: str) -> _Type:
    """Stand for a type."""
    return _TYPE


def cast(_: object, value: object) -> object:
    """Give the value as it is."""
    return value


def __getattr__(name: str) -> _Type:
    """All other names of ``typing`` mean nothing at run time."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _TYPE
