"""`penstock registry`: where plugins come from, whose signatures count, and a registry for others."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from penstock.cli.show import console
from penstock.errors import InputError
from penstock.settings import is_loopback, keep_secret, load_settings
from penstock.state.database import hosted_database

if TYPE_CHECKING:
    from penstock.plugins.registries.remote import RemoteRegistry

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the registry is called here.")]
TokenFile = Annotated[Path | None, typer.Option(help="A file with the registry's token.")]


@app.callback()
def registry() -> None:
    """
    Where plugins come from, and whose signatures count.

    Examples:

        penstock registry add hub https://plugins.example.org

        penstock registry serve --folder ./plugins-to-offer

        penstock registry trust ./team.pub
    """


@app.command("list")
def list_() -> None:
    """
    List the registries, in the order in which they are asked.

    Examples:

        penstock registry list
    """
    from penstock.plugins.registries.known import known_registries

    table = Table("registry", "address", "added by", box=None, pad_edge=False)
    table.add_row("official", "delivered with Penstock", "")
    table.add_row("local", "what was installed from folders", "")
    with hosted_database(load_settings()) as database:
        for found in known_registries(database):
            table.add_row(found.name, found.url, found.added_by)
    console().print(table)


@app.command()
def add(name: Name, url: Annotated[str, typer.Argument(help="Its base address.")]) -> None:
    """
    Ask this registry too.

    Examples:

        penstock registry add hub https://plugins.example.org
    """
    from penstock.people.users import system_account
    from penstock.plugins.registries.known import add_registry

    settings = load_settings()
    with hosted_database(settings) as database:
        made = add_registry(database, settings, name, url, actor=system_account())
    typer.echo(f"{made.name} is asked after those that were known: {made.url}")


@app.command()
def remove(name: Name) -> None:
    """
    Ask this registry no more; what was installed from it stays.

    Examples:

        penstock registry remove hub
    """
    from penstock.people.users import system_account
    from penstock.plugins.registries.known import remove_registry

    with hosted_database(load_settings()) as database:
        remove_registry(database, name, actor=system_account())
    typer.echo(f"{name} is not asked any more")


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the public one goes beside it, as .pub.")],
    name: Annotated[str, typer.Option(help="Whose it is.")],
) -> None:
    """
    Make a key to sign packages with.

    Examples:

        penstock registry key ~/.config/penstock/plugins.key --name "the platform team"
    """
    from penstock.plugins.registries.signing import make_key

    made = make_key(file, name)
    typer.echo(f"{made}")
    typer.echo(f"Key {made.id}: keep {file} to yourself, give {file.name}.pub to those who shall trust it.", err=True)


@app.command()
def trust(key_file: Annotated[Path, typer.Argument(help="A public key, as `penstock registry key` makes it.")]) -> None:
    """
    Take packages that this key has signed.

    Examples:

        penstock registry trust team.pub
    """
    from penstock.plugins.registries.signing import read_public_key
    from penstock.plugins.registries.signing import trust as trust_key

    try:
        text = key_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read it", where=str(key_file), remedy="name a .pub file") from error
    found = read_public_key(text, where=str(key_file))
    trust_key(load_settings(), found)
    typer.echo(f"packages signed by {found.name} (key {found.id}) are taken")


@app.command()
def distrust(given: Annotated[str, typer.Argument(help="The key's id or name.")]) -> None:
    """
    Take nothing more that this key has signed.

    Examples:

        penstock registry distrust "the platform team"
    """
    from penstock.plugins.registries.signing import distrust as distrust_key

    gone = distrust_key(load_settings(), given)
    typer.echo(f"packages signed by {gone.name} (key {gone.id}) are not taken any more")


@app.command()
def keys() -> None:
    """
    List the keys whose signatures count.

    Examples:

        penstock registry keys
    """
    from penstock.plugins.registries.signing import trusted_keys

    table = Table("key", "name", box=None, pad_edge=False)
    for found in trusted_keys(load_settings()):
        table.add_row(found.id, found.name)
    console().print(table)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="The plugin's folder.")],
    to: Annotated[str, typer.Option(help="The registry: its name here, or its address.")],
    token_file: TokenFile = None,
    sign_with: Annotated[Path | None, typer.Option(help="The private key to sign with.")] = None,
) -> None:
    """
    Check a plugin, pack, sign and offer it.

    Examples:

        penstock registry publish ./my-plugin --to hub --token-file hub.token --sign-with plugins.key
    """
    import tempfile

    from penstock.plugins.registries.describing import describe
    from penstock.plugins.registries.package import pack
    from penstock.plugins.registries.signing import sign

    with tempfile.TemporaryDirectory(prefix="penstock-publish-") as scratch:
        packed = pack(folder, Path(scratch) / "package.tar")
        entry = describe(folder, packed).entry
        signature = sign(sign_with, entry.name, entry.version, entry.digest) if sign_with else None
        listed = _remote(to, token_file).publish(entry.name, entry.version, packed.path, signature)
    typer.echo(f"{listed} is offered: {listed.digest}")
    if not listed.signatures:
        typer.echo("It is not signed: others will not install it without saying so.", err=True)


@app.command()
def yank(
    plugin: Annotated[str, typer.Argument(help="name@version")],
    to: Annotated[str, typer.Option("--from", help="The registry: its name here, or its address.")],
    why: Annotated[str, typer.Option(help="Why nobody should install it any more; '' takes that back.")],
    token_file: TokenFile = None,
) -> None:
    """
    Have nobody install a version any more; who has it keeps it.

    Examples:

        penstock registry yank licences@1.1.0 --from hub --why "reads too much" --token-file hub.token
    """
    name, _, version = plugin.partition("@")
    listed = _remote(to, token_file).yank(name, version, why)
    typer.echo(f"{listed} is yanked: {listed.yanked}" if listed.yanked else f"{listed} can be installed again")


@app.command()
def serve(
    folder: Annotated[Path, typer.Option(help="Where its plugins lie; made if it is not there.")],
    host: Annotated[str, typer.Option(help="Where to listen; anything but loopback needs TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8790,
    tls_cert: Annotated[Path | None, typer.Option(help="A PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="A PEM file.")] = None,
) -> None:
    """
    Serve a registry to others. The token for publishing lies in FOLDER/token.

    Examples:

        penstock registry serve --folder ./plugins-to-offer

        penstock registry serve --folder ./plugins --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    """
    import uvicorn

    from penstock.plugins.registries.describing import describe
    from penstock.plugins.registries.folder import FolderRegistry
    from penstock.plugins.registries.server import Shelf, create_registry_app

    if not is_loopback(host) and not (tls_cert and tls_key):
        what = f'refusing to listen on "{host}" without TLS'
        raise InputError(what, where="--host", remedy="give --tls-cert and --tls-key")
    folder.mkdir(parents=True, exist_ok=True)
    application = create_registry_app(Shelf(FolderRegistry(folder, "served"), describe, _writing_token(folder)))
    tls = {"ssl_certfile": str(tls_cert), "ssl_keyfile": str(tls_key)} if tls_cert and tls_key else {}
    typer.echo(f"registry of {folder}: http{'s' if tls else ''}://{host}:{port}, token in {folder / 'token'}", err=True)
    uvicorn.run(application, host=host, port=port, log_level="warning", **tls)  # type: ignore[arg-type]


def _writing_token(folder: Path) -> str:
    path = folder / "token"
    if not path.exists():
        keep_secret(path, f"prt_{secrets.token_urlsafe(32)}")
    return path.read_text().strip()


def _remote(given: str, token_file: Path | None) -> "RemoteRegistry":
    from penstock.plugins.registries.known import known_registries, open_remote

    settings = load_settings()
    token = _read_token(token_file)
    if "://" in given:
        return open_remote(settings, given, given, token)
    with hosted_database(settings) as database:
        found = [one for one in known_registries(database) if one.name == given]
    if not found:
        raise InputError(f'no registry is called "{given}"', remedy="see `penstock registry list`, or give its address")
    return open_remote(settings, given, found[0].url, token)


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the token", where=str(file)) from error
