"""What the stack remembers: ports, keys, and the settings that lead to it."""

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.errors import MachineError
from tasks.local import ports, state
from tasks.local.state import PORTS, Keys, Stack
from tasks.settings import Settings, hub_token

ALL = frozenset(PORTS)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A taken port stays taken here; do not wait for its release."""
    monkeypatch.setattr(state, "_RELEASE_S", 0.01)


def test_ports_are_kept_from_one_start_to_the_next(tmp_path: Path) -> None:
    """Addresses stay the same while nobody else takes them."""
    first = state.remember(tmp_path, ALL, {})
    assert state.remember(tmp_path, ALL, {}) == first
    assert len(set(first.ports.values())) == len(first.ports)
    assert set(first.ports) == {purpose for group in PORTS.values() for purpose in group} | {"admin_grpc"}


def test_a_port_that_somebody_took_is_replaced_for_an_idle_part_alone(tmp_path: Path) -> None:
    """A part that runs holds its own port; one that does not run gets another."""
    first = state.remember(tmp_path, ALL, {})
    with socket.create_server((ports.HOST, first.ports["prefect"])):
        assert state.remember(tmp_path, ALL - {"prefect"}, {}) == first
        second = state.remember(tmp_path, ALL, {})
    assert second.ports["prefect"] != first.ports["prefect"]
    assert second.ports | {"prefect": 0} == first.ports | {"prefect": 0}


def test_a_demanded_port_is_used_or_refused(tmp_path: Path) -> None:
    """A person's demand is never silently replaced, the second time no more than the first."""
    free = ports.choose()
    assert state.remember(tmp_path, ALL, {"prefect": free}).ports["prefect"] == free
    with socket.create_server((ports.HOST, free)), pytest.raises(MachineError, match="is taken"):
        state.remember(tmp_path, ALL, {"prefect": free})


def test_keys_are_made_once_and_only_this_user_can_read_them(tmp_path: Path) -> None:
    """The same keys open yesterday's data; their texts show nowhere."""
    keys = Keys.load(tmp_path)
    assert Keys.load(tmp_path) == keys
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "secrets").iterdir())
    assert not any(text in repr(keys) for text in keys.texts())


def test_settings_and_environment_lead_to_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that gets the variables reads exactly the settings that the commands use."""
    stack = state.addresses(tmp_path, state.remember(tmp_path, ALL, {}))
    told = Settings(**stack.settings())
    for name, value in stack.environment().items():
        if name.startswith("SLIPWAY_"):
            monkeypatch.setenv(name, value)
    assert Settings() == told
    assert told.store.secret_key == Keys.load(tmp_path).secret_key
    assert Stack.from_json(stack.to_json()) == stack


def test_a_person_s_files_of_secrets_are_passed_on_and_their_secrets_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command uses both; a worker, which outlives the shell, is given the paths alone, and the token's own Hub."""
    monkeypatch.chdir(tmp_path)
    told = {"HUB__TOKEN_FILE": "token", "SIGNING__KEY": "key.pem", "SIGNING__PASSWORD": "CANARY", "HUB__XET": "no"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLIPWAY_{name}", value)
    (tmp_path / "token").write_text("hf_of_the_real_hub\n")
    stack = state.addresses(tmp_path, state.remember(tmp_path, ALL, {}))
    command, worker = Settings(**stack.settings()), stack.environment()

    assert SecretStr("CANARY") == command.signing.password
    assert "CANARY" not in str(worker)
    assert {"SLIPWAY_SIGNING__PASSWORD"} == set(state.kept_back())
    for name in told:
        monkeypatch.delenv(f"SLIPWAY_{name}")
    for name, value in worker.items():
        if name.startswith("SLIPWAY_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    settings = Settings()
    assert (stack.hub, False, tmp_path / "key.pem") == (settings.hub.endpoint, settings.hub.xet, settings.signing.key)
    assert SecretStr("hf_of_the_real_hub") == hub_token(settings.hub, "https://huggingface.co")
    assert hub_token(settings.hub, stack.hub) is None


def test_a_token_of_the_shell_serves_its_commands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the Hub it was set for, not to the stack's own and not to the stack's processes."""
    monkeypatch.setenv("SLIPWAY_HUB__TOKEN", "hf_CANARY")
    monkeypatch.setenv("SLIPWAY_HUB__ENDPOINT", "https://hub.example")
    stack = state.addresses(tmp_path, state.remember(tmp_path, ALL, {}))
    command = Settings(**stack.settings())

    assert SecretStr("hf_CANARY") == hub_token(command.hub, "https://hub.example")
    assert hub_token(command.hub, stack.hub) is None
    assert "CANARY" not in str(stack.environment())
    assert ("SLIPWAY_HUB__TOKEN",) == state.kept_back()


def test_the_folder_for_sockets_is_short_private_and_not_a_link(tmp_path: Path) -> None:
    """Ray's socket paths hold 107 bytes, and /tmp belongs to everybody."""
    folder = state.make_short_folder(tmp_path)
    try:
        assert len(str(folder)) < 25
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.rmdir()
        folder.symlink_to(tmp_path)
        with pytest.raises(MachineError, match="belongs to another"):
            state.make_short_folder(tmp_path)
    finally:
        folder.unlink(missing_ok=True)
