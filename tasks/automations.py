"""Makes the automations of ``automations.yaml`` on a Prefect server, or brings those of the same name up to date.

Prefect's own command makes a second one of each name when it is run twice.  Run as a program, because whoever starts
the embedded stack must not load Prefect: ``python -m tasks.automations [FILE]``.
"""

import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore

FILE = Path(__file__).parents[1] / "automations.yaml"


def apply(file: Path = FILE) -> tuple[str, ...]:
    """Make or renew every automation of ``file`` on the configured server and return their names."""
    wanted = [AutomationCore.model_validate(one) for one in yaml.safe_load(file.read_text())["automations"]]
    with get_client(sync_client=True) as client:
        for automation in wanted:
            there = client.read_automations_by_name(automation.name)
            if there:
                client.update_automation(there[0].id, automation)
            else:
                client.create_automation(automation)
            for twice in there[1:]:
                client.delete_automation(twice.id)
    return tuple(automation.name for automation in wanted)


if __name__ == "__main__":
    apply(*(Path(argument) for argument in sys.argv[1:]))
