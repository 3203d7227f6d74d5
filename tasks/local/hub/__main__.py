"""``python -m tasks.local.hub``: serves a root until SIGTERM, after one line of JSON that says where.

The line is ``{"endpoint": ..., "content_endpoint": ...}`` on standard output, written when both listeners
accept.  Tokens come from a file, never from the command line, which other users of the machine can read.
"""

import argparse
import json
import sys
from pathlib import Path

from tasks.errors import SlipwayError
from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import LINK_LIFETIME_S, HubServer


def main() -> int:
    """Run the Hub and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.local.hub", description="A Hugging Face Hub on loopback.")
    parser.add_argument("--root", type=Path, required=True, help="folder of repositories")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0 takes a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the second host; 0 takes a free one")
    parser.add_argument("--tokens", type=Path, help="JSON file, mode 0600, of tokens and what they open")
    parser.add_argument("--link-lifetime", type=float, default=LINK_LIFETIME_S, help="seconds a signed link holds")
    given = parser.parse_args()
    try:
        server = HubServer(
            given.root,
            port=given.port,
            content_port=given.cdn_port,
            tokens=AccessTokens.from_file(given.tokens) if given.tokens else None,
            link_lifetime_s=given.link_lifetime,
            on_ready=lambda: _say_where(server),
        )
    except SlipwayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    server.run()
    return 0


def _say_where(server: HubServer) -> None:
    sys.stdout.write(json.dumps({"endpoint": server.endpoint, "content_endpoint": server.content_endpoint}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
