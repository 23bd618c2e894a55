"""``holdfast token``: who may ask, and who may change things."""

from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.cli.person import person
from holdfast.core.clock import SystemClock
from holdfast.tokens import make_token, revoke_token, tokens

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Access tokens: made, listed, revoked.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for.")]
Role = Annotated[str, typer.Option(help="client: predictions, labels and looking; admin: changes too.")]


@app.command()
def new(name: Name, role: Role = "client", state: StateDirectory = STATE, as_json: AsJson = False) -> None:
    """Make a token and print its secret, which is shown this once; only its hash is kept."""
    with opened(state) as here:
        with here.catalog.begin() as tx:
            secret = make_token(tx, name, role, now=SystemClock().now(), by=person())
        here.publish_routes()
    if as_json:
        say_json({"name": name, "role": role, "token": secret})
    else:
        say(secret)


@app.command("list")
def list_(state: StateDirectory = STATE, as_json: AsJson = False) -> None:
    """List the active tokens."""
    with opened(state) as here, here.catalog.read() as tx:
        found = tokens(tx)
    if as_json:
        say_json([{"id": t.id, "name": t.name, "role": t.role, "at": t.at} for t in found])
        return
    if not found:
        say("no tokens; the first `holdfast up` makes an admin token")
        return
    say_table(("token", "name", "role", "made"), [(t.id, t.name, t.role, when(t.at)) for t in found])


@app.command()
def revoke(name: Name, state: StateDirectory = STATE, as_json: AsJson = False) -> None:
    """End a token, by name or id; workers refuse it within a second."""
    with opened(state) as here:
        with here.catalog.begin() as tx:
            gone = revoke_token(tx, name, now=SystemClock().now(), by=person())
        generation = here.publish_routes()
    if as_json:
        say_json({"id": gone.id, "name": gone.name, "generation": generation})
    else:
        say(f"token '{gone.name}' is revoked")
