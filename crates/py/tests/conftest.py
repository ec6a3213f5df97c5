"""One model, plan, client and server in a small ring, for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import cipherlm as cl

#: A ring that protects nothing.
PROFILE = "insecure-9"
PROMPT = "Once upon a time"


@pytest.fixture(scope="session")
def model() -> cl.Model:
    return cl.from_pretrained("stories-2x128")


@pytest.fixture(scope="session")
def plan(model: cl.Model) -> cl.Plan:
    return model.plan(tokens=8, profile=PROFILE)


@pytest.fixture(scope="session")
def client(plan: cl.Plan, tmp_path_factory: pytest.TempPathFactory) -> cl.Client:
    return cl.Client.create(tmp_path_factory.mktemp("keys") / "own", plan)


@pytest.fixture(scope="session")
def server(model: cl.Model, plan: cl.Plan, client: cl.Client) -> cl.LocalServer:
    server = cl.LocalServer(model, plan)
    assert server.push(client)["keys"] > 10
    return server


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path / "new"
