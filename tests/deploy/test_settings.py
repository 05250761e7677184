"""Settings: the environment over the file over the defaults, and one clear sentence for what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import example, load, origins
from streams.events import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "hitstream.toml"
    file.write_text(
        '[live]\nport = 9000\n[kiwoom]\naccount = "second"\n'
        '[[conditions]]\nname = "신고가 돌파"\nweight = 2\nwindow = ["09:00", "15:20"]\n',
        encoding="utf-8",
    )
    return file


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(config: Path) -> None:
    settings = load(config, {"HITSTREAM_LIVE__PORT": "9001"})
    assert (settings.live.port, settings.kiwoom.account, settings.live.host) == (9001, "second", "127.0.0.1")
    assert [(c.name, c.weight, str(c.window[0]) if c.window else "") for c in settings.conditions] == [
        ("신고가 돌파", 2.0, "09:00:00")
    ]


def test_origins_name_the_source_of_each_value(config: Path, tmp_path: Path) -> None:
    found = origins(config, {"HITSTREAM_LIVE__PORT": "9001", "HITSTREAM_KIWOOM__APP_KEY_FILE": "/run/key"})
    assert found["live.port"] == "environment HITSTREAM_LIVE__PORT"
    assert found["kiwoom.app_key"] == "environment HITSTREAM_KIWOOM__APP_KEY_FILE"
    assert found["kiwoom.account"] == str(config)
    assert found["live.host"] == "default"


def test_a_secret_may_be_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("hush\n")
    settings = load(None, {"HITSTREAM_KIWOOM__APP_KEY_FILE": str(secret)})
    assert settings.kiwoom.app_key.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[live]\nprot = 1", {}, "unknown setting live.prot; did you mean port?"),
        ("[lvie]\nport = 1", {}, "unknown setting [lvie]; did you mean live?"),
        ('[[conditions]]\nnmae = "x"', {}, "unknown setting conditions.nmae; did you mean name?"),
        ("live = 3", {}, "write [live]"),
        ("[live\n", {}, "not valid TOML"),
        ("", {"HITSTREAM_LIVE__PROT": "1"}, "did you mean HITSTREAM_LIVE__PORT?"),
        ("", {"HITSTREAM_LIVE__PORT": "eighty"}, "live.port does not fit"),
        ("[clock]\nspeed = 0", {}, "clock.speed does not fit"),
        ("[clock]\nstart = 2026-11-23T09:00:00", {}, "needs a UTC offset"),
        ('[[conditions]]\nname = "a"\n[[conditions]]\nname = "a"', {}, "stands there twice"),
        ('[kiwoom]\naccount = "a/b"', {}, "kiwoom.account does not fit"),
        ("", {"HITSTREAM_KIWOOM__APP_KEY_FILE": "/nowhere/key"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(
    tmp_path: Path, text: str, environ: dict[str, str], words: str
) -> None:
    file = tmp_path / "hitstream.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, environ)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no settings file"):
        load(tmp_path / "none.toml", {})


def test_the_example_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "hitstream.toml"
    file.write_text(example(), encoding="utf-8")
    assert [condition.name for condition in load(file, {}).conditions] == ["신고가 돌파", "대왕개미단타"]
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in example().splitlines())
    assert 'dsn = ""' in uncommented
