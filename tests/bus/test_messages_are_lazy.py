"""Every message has its home, and a process pays only for those that it uses."""

import subprocess
import sys

import bus.messages


def test_every_public_name_can_be_imported() -> None:
    for name in bus.messages.__all__:
        assert getattr(bus.messages, name) is not None


def test_an_agent_does_not_carry_the_messages_of_clients_and_leaders() -> None:
    program = "import sys, agent_runtime.worker; print(*(m for m in sys.modules if m.startswith('bus.messages.')))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"bus.messages.commands", "bus.messages.control", "bus.messages.outcomes"} & set(ran.stdout.split())
