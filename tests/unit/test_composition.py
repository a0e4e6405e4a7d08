"""Drivers are opened together and closed in reverse, and one that hangs holds up nobody."""

import asyncio
from dataclasses import dataclass, fields
from typing import Self, cast

import pytest

from fargate_agent import composition
from fargate_agent.composition import open_drivers
from fargate_agent.drivers import Driver, Drivers
from tests.fakes import fake_drivers


@dataclass
class Noted(Driver):
    """Writes down when it is opened and closed."""

    name: str
    diary: list[str]
    hangs: bool = False

    async def __aenter__(self) -> Self:
        self.diary.append(f"open {self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        self.diary.append(f"close {self.name}")


@pytest.fixture
def diary() -> list[str]:
    return []


@pytest.fixture
def drivers(diary: list[str], monkeypatch: pytest.MonkeyPatch) -> Drivers:
    """Three drivers, of which the one in the middle hangs when it is closed."""
    monkeypatch.setattr(composition, "CLOSE_TIMEOUT_S", 0.01)
    made = [Noted("one", diary), Noted("two", diary, hangs=True), Noted("three", diary)]
    return cast(Drivers, made)


async def test_a_driver_that_is_not_closed_in_time_holds_up_no_other(
    drivers: Drivers, diary: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_drivers(drivers):
        assert diary == ["open one", "open two", "open three"]

    assert diary[3:] == ["close three", "close one"]
    assert "Noted is not closed after 0.01 s" in caplog.text


async def test_drivers_are_closed_when_the_agent_fails(drivers: Drivers, diary: list[str]) -> None:
    async def fail() -> None:
        async with open_drivers(drivers):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="^broken$"):
        await fail()

    assert diary[3:] == ["close three", "close one"]


def test_every_driver_is_one_of_those_that_are_opened() -> None:
    drivers = fake_drivers().all
    for field in fields(Drivers):
        value = getattr(drivers, field.name)
        one, *_ = value.values() if isinstance(value, dict) else (value,)

        assert any(driver is one for driver in drivers)
