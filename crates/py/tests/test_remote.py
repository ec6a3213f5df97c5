"""A server as a program, on loopback, in a small ring."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import cipherlm as cl
from cipherlm import errors

from .conftest import PROMPT

#: The command, where it is at hand.
COMMAND = os.environ.get("CIPHERLM_COMMAND")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="CIPHERLM_COMMAND names no `cipherlm`")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a server, and its folder."""
    data = tmp_path_factory.mktemp("served")
    command = [COMMAND or "", "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--json"]
    command += ["--plain-http", "--insecure-ring", "9", "--length", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())["listening"], data
        child.terminate()


def test_keys_are_pushed_once_and_a_prompt_is_answered(
    served: tuple[str, Path], model: cl.Model, plan: cl.Plan, tmp_path: Path
) -> None:
    address, data = served
    token = (data / "token").read_text()
    server = cl.connect(address, token=token)
    theirs = server.plan()
    assert theirs.id == plan.id, "the same model, length and ring"
    assert token.strip() not in repr(server)
    client = cl.Client.create(tmp_path / "keys", theirs, insecure=True)
    with pytest.raises(errors.KeyUnknown):
        server.run(client.encrypt(PROMPT)).result()
    told: list[tuple[int, int]] = []
    first = server.push(client, progress=lambda now, all: told.append((now, all)))
    assert first["sent"] == first["keys"] > 10 and told[-1] == (first["bytes"], first["bytes"])
    assert server.push(client) == {"keys": first["keys"], "sent": 0, "bytes": 0}

    job = server.run(client.encrypt(PROMPT))
    events = list(job.events())
    assert events[-1]["event"] == "done" and any(event["event"] == "step" for event in events)
    raw = client.decrypt(job, raw=True)
    clear = model.clear(model.tokens(PROMPT), plan)
    assert 0 < abs(raw - clear).max() < 0.5

    given_up = server.run(client.encrypt(PROMPT))
    given_up.cancel()
    with pytest.raises(errors.Cancelled):
        given_up.result()


def test_refusals_of_a_server_are_the_same_exceptions(served: tuple[str, Path]) -> None:
    address, _ = served
    with pytest.raises(errors.Auth, match="Bearer"):
        cl.connect(address, token="0" * 64).plan()
    with pytest.raises(errors.LineDown, match="is the server running"):
        cl.connect("http://127.0.0.1:9", token="t").plan()
