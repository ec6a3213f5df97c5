"""Every refusal has its exception, and no exception lacks a cause."""

from __future__ import annotations

from pathlib import Path

import pytest

import cipherlm as cl
from cipherlm import _cipherlm, errors

from .conftest import PROMPT


def classes() -> dict[str, type[errors.CipherlmError]]:
    found = {c.__name__: c for c in errors.CipherlmError.__subclasses__()}
    return {name: c for name, c in found.items() if c.__module__ == errors.__name__}


def test_exceptions_mirror_the_codes_of_the_protocol() -> None:
    codes = dict(_cipherlm._codes())
    assert len(codes) > 40
    mirrored = {c.code: n for n, c in classes().items() if not c.code.startswith("local/")}
    assert mirrored == codes
    assert len({c.code for c in classes().values()}) == len(classes())


def test_refusals_name_the_next_step(model: cl.Model, plan: cl.Plan, client: cl.Client) -> None:
    with pytest.raises(errors.PromptRefused, match="pass some text"):
        client.encrypt("")
    with pytest.raises(errors.PromptRefused, match="shorten"):
        client.encrypt("cat " * 200)
    with pytest.raises(errors.PositionRefused, match="position 7"):
        client.encrypt("One", position=7)
    with pytest.raises(errors.PlanRefused, match="n16-13"):
        model.plan(profile="n17")
    with pytest.raises(errors.PlanRefused, match="insecure-8"):
        model.plan(profile="insecure-99x")
    with pytest.raises(errors.PlanRefused, match="2\\^8 to 2\\^15"):
        model.plan(tokens=8, profile="insecure-16")
    with pytest.raises(errors.PlanRefused, match="1 to 128"):
        model.plan(tokens=129, profile="insecure-9")
    with pytest.raises(errors.ModelRefused, match="stories-2x128"):
        cl.from_pretrained("no-such-model")
    with pytest.raises(errors.Malformed):
        client.decrypt(cl.Answer.from_bytes(b"hello"))
    with pytest.raises(errors.AddressRefused, match="https://HOST:PORT"):
        cl.connect("http://example.org", token="t")
    with pytest.raises(errors.AddressRefused, match="go together"):
        cl.connect("https://example.org", token="t", certificate="chain.pem")


def test_damaged_answers_are_told_by_their_code(client: cl.Client, server: cl.LocalServer) -> None:
    whole = server.run(client.encrypt(PROMPT)).result().to_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(errors.ObjectHash):
        client.decrypt(cl.Answer.from_bytes(flipped))
    with pytest.raises((errors.ObjectTruncated, errors.Malformed)):
        client.decrypt(cl.Answer.from_bytes(whole[: len(whole) // 2]))


def test_keys_of_another_plan_or_secret_do_not_fit(
    model: cl.Model, plan: cl.Plan, client: cl.Client, empty: Path
) -> None:
    other = model.plan(tokens=4, profile="insecure-9")
    assert other.id != plan.id
    with pytest.raises(errors.PlanMismatch, match=other.id):
        cl.Client.open(client.folder, other)
    with pytest.raises(errors.PlanMismatch, match="another folder"):
        cl.Client.create(client.folder, other, resume=True)
    with pytest.raises(errors.FileRefused, match="Client.open"):
        cl.Client.create(client.folder, plan)
    with pytest.raises(errors.Malformed, match="Client.create"):
        cl.Client.open(empty, plan)
    lone = cl.LocalServer(model, plan)
    with pytest.raises(errors.KeyUnknown, match="push"):
        lone.run(client.encrypt(PROMPT))


def test_a_secret_that_others_may_read_is_refused(plan: cl.Plan, empty: Path) -> None:
    cl.Client.create(empty, plan)
    secret = empty / "secret.key"
    assert secret.stat().st_mode & 0o077 == 0 and empty.stat().st_mode & 0o077 == 0
    secret.chmod(0o644)
    with pytest.raises(errors.SecretRefused, match="chmod 600"):
        cl.Client.open(empty, plan)
    secret.chmod(0o600)
    secret.write_bytes(b"not a secret")
    with pytest.raises(errors.SecretRefused, match="is not the secret key"):
        cl.Client.open(empty, plan)
