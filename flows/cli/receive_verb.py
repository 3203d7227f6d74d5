"""The verb that receives webhooks: ``slipway receive`` runs until it is told to stop."""

import json
import logging

import typer

from flows.cli.app import MACHINE, AsJson, app, say, settings_of

FORMAT = "%(asctime)s %(levelname)s %(message)s"


@app.command(rich_help_panel=MACHINE)
def receive(as_json: AsJson = False) -> None:
    """Receive webhooks, and look at once whether a service's ref moved; SIGTERM or Ctrl-C ends it in good order.

    POST /webhook takes Hugging Face's webhooks, and {"model": "org/name", "ref": "main"}. What opens it is in
    SLIPWAY_RECEIVER__SECRET or SLIPWAY_RECEIVER__SECRET_FILE. It speaks plain HTTP: let an ingress add TLS.
    """
    from tasks import receiving  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for chatty in ("httpx", "uvicorn.error", "prefect"):  # uvicorn writes a line for each malformed request
        logging.getLogger(chatty).setLevel(logging.ERROR)

    def ready(address: str) -> None:
        if as_json:
            typer.echo(json.dumps({"webhook": f"{address}/webhook"}))
        else:
            say(f"receives webhooks at {address}/webhook")

    receiving.serve(settings_of(), on_ready=ready)
