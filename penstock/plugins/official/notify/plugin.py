"""Tells people by Apprise; see docs/index.md."""

from pathlib import Path
from urllib.parse import urlsplit

import apprise
import tunnel

from penstock import sdk


def main(plugin: sdk.Plugin) -> None:
    """Each address on its own, so that one that is away keeps none of the others waiting."""
    tunnel.lead_mail_through_the_proxy()
    addresses = [line.strip() for line in plugin.secrets["addresses"].splitlines() if line.strip()]
    if not addresses:
        raise sdk.BadConfiguration("the secret addresses holds no address")
    attached = [str(file) for file in files(plugin)]
    refused = [service(address) for address in addresses if not tell(plugin, address, attached)]
    told = len(addresses) - len(refused)
    plugin.metric("told", told)
    plugin.output("told", told)
    if refused:
        raise (
            sdk.TryAgain(f"{', '.join(refused)} did not take the message")
            if not told
            else sdk.Failed(f"{', '.join(refused)} did not take the message; {told} did")
        )


def tell(plugin: sdk.Plugin, address: str, attached: list[str]) -> bool:
    """Whether it took the message. An address is never printed: it holds the token."""
    known = apprise.Apprise()
    if not known.add(address):
        raise sdk.BadConfiguration(f"an address of {service(address)} is wrong; see Apprise's documentation")
    inputs = plugin.inputs
    asset = apprise.NotifyType(inputs["severity"])
    done = known.notify(
        title=inputs["title"],
        body=inputs["body"],
        notify_type=asset,
        body_format=apprise.NotifyFormat.MARKDOWN,
        attach=attached or None,
    )
    plugin.log(f"{service(address)}: {'told' if done else 'refused'}")
    return bool(done)


def service(address: str) -> str:
    """What kind of address it is: its scheme, without anything of it that is secret."""
    return urlsplit(address).scheme or "an address without a scheme"


def files(plugin: sdk.Plugin) -> list[Path]:
    """The files to attach. Raises: BadConfiguration for one that is not in the workspace."""
    root, found = plugin.workspace.resolve(), []
    for name in plugin.inputs["attach"]:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise sdk.BadConfiguration(f"there is no file {name} in the workspace")
        found.append(path)
    return found


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
