"""Wrong use: one sentence that says what to do, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from producers.journal import Header, Writer

ROOT = Path(__file__).parents[2]


def hitstream(
    *arguments: str, folder: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` with nothing of ours in the environment but `environ`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd=folder,
        env=clean
        | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "XDG_STATE_HOME": str(folder), "LC_ALL": "C.UTF-8"}
        | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


ACCOUNT = {
    "HITSTREAM_KIWOOM__REST_URL": "http://127.0.0.1:9",
    "HITSTREAM_KIWOOM__WEBSOCKET_URL": "ws://127.0.0.1:9",
    "HITSTREAM_KIWOOM__APP_KEY": "key",
    "HITSTREAM_KIWOOM__SECRET_KEY": "secret",
}


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "words"),
    [
        (["config"], {"HITSTREAM_LIVE__PROT": "1"}, 2, "did you mean HITSTREAM_LIVE__PORT"),
        (["config", "--config", "none.toml"], {}, 2, "There is no settings file none.toml"),
        (["config", "--config", "."], {}, 2, "The settings file . cannot be read: it is a folder."),
        (
            ["sql", "--file", "none.sql"],
            {"HITSTREAM_CLICKHOUSE__DSN": "clickhouse://127.0.0.1:9/x"},
            2,
            "none.sql can't be read: there is no such file.",
        ),
        (["produce"], {}, 2, "kiwoom.rest_url is not set"),
        (["produce"], ACCOUNT, 2, "No condition is configured"),
        (["stream"], {}, 2, "kafka.bootstrap_servers is not set"),
        (["sink", "clickhouse"], {}, 2, "clickhouse.dsn is not set"),
        (["sink", "live"], {}, 2, "kafka.bootstrap_servers is not set"),
        (["topics"], {}, 2, "kafka.bootstrap_servers is not set"),
        (["migrate"], {}, 2, "clickhouse.dsn is not set"),
        (["sql", "SELECT 1"], {}, 2, "clickhouse.dsn is not set"),
        (["export", "stocks", "x.parquet"], {}, 2, "clickhouse.dsn is not set"),
        (["backup", "x"], {}, 2, "clickhouse.dsn is not set"),
        (["restore", "x"], {}, 2, "There is no backup x"),
        (["local", "clickhouse", "--port", "0", "--host", "0.0.0.0"], {}, 2, "only with a password"),
        (
            ["local", "clickhouse", "--password-file", "none"],
            {},
            2,
            "--password-file none can't be read: there is no such file.",
        ),
        (["local", "kiwoom", "--speed", "0"], {}, 2, "--speed must be above 0"),
        (["conditions"], {}, 2, "kiwoom.rest_url is not set"),
        (["search"], ACCOUNT, 2, "search"),
        (["search", "돌파"], {}, 2, "kiwoom.rest_url is not set"),
        (["search", "돌파"], ACCOUNT, 1, "127.0.0.1:9"),
        (["conditions"], ACCOUNT, 1, "127.0.0.1:9"),
        (["status"], {}, 2, "kafka.bootstrap_servers is not set"),
        (["status"], {"HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}, 1, "127.0.0.1:9"),
        (
            ["status", "--watch", "--json"],
            {"HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"},
            2,
            "do not go together",
        ),
        (["doctor", "--observe", "0"], ACCOUNT, 2, "--observe must be above 0"),
        (["doctor", "--lang", "fr"], ACCOUNT, 2, "fr"),
        (["doctor", "--second-key-file", "none"], ACCOUNT, 2, "none cannot be read: there is no such file."),
        (["doctor"], ACCOUNT, 1, "There is no way to Kiwoom"),
        (["doctor"], {}, 1, "kiwoom.app_key is not set"),
        (["doctor", "--lang", "ko"], {}, 1, "설정이 완전하지 않습니다"),
        (["doctor"], {"LC_ALL": "ko_KR.UTF-8"}, 1, "설정이 완전하지 않습니다"),
        (["up", "--live"], {}, 2, "needs kiwoom.app_key"),
        (["up", "--live"], {k: v for k, v in ACCOUNT.items() if "KEY" in k}, 2, "No condition is configured"),
        (["up"], {"HITSTREAM_KIWOOM__REST_URL": "http://127.0.0.1:9"}, 2, "or neither"),
        (["up", "--lvie"], {}, 2, "--lvie"),
        (["up"], {"HITSTREAM_RECOMMEND__RULE": "confluense"}, 2, "confluense"),
        (["topics"], {"HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}, 1, "127.0.0.1:9"),
        (["migrate"], {"HITSTREAM_CLICKHOUSE__DSN": "clickhouse://127.0.0.1:9/x"}, 1, "127.0.0.1:9"),
    ],
)
def test_wrong_use_is_one_sentence(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], code: int, words: str
) -> None:
    done = hitstream(*arguments, folder=tmp_path, environ=environ)
    assert (done.returncode, words in done.stderr + done.stdout) == (code, True), done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["config", "--up"], ["up"]])
def test_what_a_role_would_refuse_is_refused_before_anything_starts(tmp_path: Path, arguments: list[str]) -> None:
    environ = {"HITSTREAM_KIWOOM__DAYS": '["2026-13-03 closed"]'}
    done = hitstream(*arguments, folder=tmp_path, environ=environ)
    words = f"hitstream {arguments[0]}: kiwoom.days has '2026-13-03 closed'"
    assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    assert not (tmp_path / ".data").exists()


def test_config_says_which_values_up_has_of_its_own_and_shows_them(tmp_path: Path) -> None:
    plain = hitstream("config", folder=tmp_path)
    assert (plain.returncode, plain.stderr) == (0, "")
    *_, last = plain.stdout.splitlines()
    assert last.startswith("`hitstream up` has values of its own for clickhouse.dsn, conditions, kafka.bootstrap_")
    assert last.endswith("recommend.threshold, stream.instance: `hitstream config --up` shows them.")
    told = json.loads(hitstream("config", "--up", "--json", folder=tmp_path).stdout)
    assert told["recommend.threshold"] == {"value": 1.5, "from": "hitstream up"}
    assert told["kafka.bootstrap_servers"] == {"value": "127.0.0.1:9092", "from": "hitstream up"}
    assert len(told["conditions"]["value"]) == 8
    assert told["live.port"] == {"value": 8080, "from": "default"}
    silent = hitstream("config", folder=tmp_path, environ=ACCOUNT)  # roles that are started one by one
    assert (silent.returncode, "hitstream up" in silent.stdout) == (0, False)


def test_a_journal_of_no_conditions_is_not_replayed_to_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path / "day.zst", Header()):
        pass
    done = hitstream("replay", "day.zst", folder=tmp_path, environ={})
    assert (done.returncode, "no conditions configured" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["status"], "kafka.bootstrap_servers"),
        (["topics"], "kafka.bootstrap_servers"),
        (["journal", "day.zst"], "kafka.bootstrap_servers"),
        (["dead-letters"], "kafka.bootstrap_servers"),
        (["sql", "SELECT 1"], "clickhouse.dsn"),
        (["migrate"], "clickhouse.dsn"),
        (["backup", "x"], "clickhouse.dsn"),
        (["report"], "clickhouse.dsn"),
        (["doctor"], "kiwoom.rest_url"),
        (["conditions"], "kiwoom.rest_url"),
    ],
)
def test_beside_the_data_of_an_up_that_does_not_run_that_is_what_is_said(
    tmp_path: Path, arguments: list[str], key: str
) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "up.lock").write_text("1")
    done = hitstream(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == (
        f"hitstream {arguments[0]}: `hitstream up`, whose data is in .data, is not running: start it and wait until it "
        f"says that it runs, or set {key} (HITSTREAM_{key.upper().replace('.', '__')}).\n"
    )


def test_a_journal_of_a_kafka_that_is_down_says_what_to_do_and_leaves_no_file(tmp_path: Path) -> None:
    environ = {"HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    for _ in range(2):  # the name is free for another try
        done = hitstream("journal", "day.zst", folder=tmp_path, environ=environ)
        assert done.returncode == 1
        assert done.stderr == (
            "hitstream journal: Kafka does not answer at 127.0.0.1:1: start it, or correct kafka.bootstrap_servers\n"
        )
    assert not (tmp_path / "day.zst").exists()


# 0 is any free port: what else runs on this machine is not this test's matter.
FREE = {f"HITSTREAM_LOCAL__{server}_PORT": "0" for server in ("KAFKA", "CLICKHOUSE", "KIWOOM")}


def test_a_taken_port_is_named_with_the_setting_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = hitstream("up", folder=tmp_path, environ=FREE | {"HITSTREAM_LIVE__PORT": port})
    assert done.returncode == 1
    assert f"Port {port}, which the dashboard needs, is taken" in done.stderr
    assert "live.port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_config_masks_every_secret(tmp_path: Path) -> None:
    environ = ACCOUNT | {
        "HITSTREAM_KIWOOM__APP_KEY": "hush-app",
        "HITSTREAM_KIWOOM__SECRET_KEY": "hush-secret",
        "HITSTREAM_LIVE__TOKEN": "hush-token",
        "HITSTREAM_CLICKHOUSE__DSN": "clickhouse://me:hush-password@host:8123/db",
    }
    for arguments in (["config"], ["config", "--json"]):
        done = hitstream(*arguments, folder=tmp_path, environ=environ)
        assert done.returncode == 0
        assert "hush" not in done.stdout + done.stderr
        assert "clickhouse://me:**********@host:8123/db" in done.stdout


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    quoted = f"{sys.executable} -m deploy.cli config --example | head -n 1"
    done = subprocess.run(
        ["sh", "-c", quoted], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


def test_a_role_does_not_read_what_only_people_call() -> None:
    """Every module costs each start of each role; `make bench ARGS="-k cold_start"` tells how much."""
    program = "import sys, deploy.cli, deploy.roles; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = answer.stdout.split()
    assert {"deploy.cli", "aiokafka"} <= set(loaded)
    assert not {"httpx", "faust", "litestar", "clickhouse_connect", "deploy.sql_commands", "streams.lane"} & set(loaded)
