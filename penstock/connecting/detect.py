"""Which forge is behind an address: by its host where that says it, else by asking the host what it is."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

from penstock.forges.registry import forge_named
from penstock.sources.login import is_ssh
from penstock.webhooks.hooks import repository_in

PLAIN = "git"  # a repository that no forge's API speaks for
_HOSTS = {
    "github.com": ("github", "https://api.github.com"),
    "ssh.github.com": ("github", "https://api.github.com"),
    "gitlab.com": ("gitlab", "https://gitlab.com/api/v4"),
    "altssh.gitlab.com": ("gitlab", "https://gitlab.com/api/v4"),
    "bitbucket.org": ("bitbucket-cloud", "https://api.bitbucket.org/2.0"),
    "altssh.bitbucket.org": ("bitbucket-cloud", "https://api.bitbucket.org/2.0"),
    "codeberg.org": ("forgejo", "https://codeberg.org/api/v1"),
    "gitea.com": ("gitea", "https://gitea.com/api/v1"),
}
_API_PATHS = {
    "github": "/api/v3",
    "gitlab": "/api/v4",
    "gitea": "/api/v1",
    "forgejo": "/api/v1",
    "bitbucket-server": "/rest/api/1.0",
}
_AZURE = ("dev.azure.com", "ssh.dev.azure.com")


@attrs.frozen
class Place:
    """
    A repository at a forge. forge: `git` where none is known. repository: the forge's name for it, such as shop/api.

    api_url: base of the forge's API; None where there is none that Penstock speaks.
    """

    forge: str
    repository: str | None = None
    api_url: str | None = None


@attrs.frozen
class Answer:
    """What a host answered: status, headers by their small names, JSON or None."""

    status: int
    headers: Mapping[str, str]
    body: Any = None


Ask = Callable[[str], Answer | None]
"""Address → what it answered; None when it did not."""


def place_of(url: str, *, forge: str | None = None, ask: Ask | None = None) -> Place:
    """
    forge: what the user says it is; None finds it out. ask: for hosts that nothing is known of; None asks nobody.

    Raises: NotFoundError for a forge that is not known.
    """
    host, base = _host(url)
    if host is None:
        return Place(PLAIN)
    known = _by_host(host, url)
    if forge is not None and forge != PLAIN:
        forge_named(forge)
        api_url = known.api_url if known and known.forge == forge else _api_of(forge, base)
        return Place(forge, repository_in(url), api_url)
    if forge == PLAIN:
        return Place(PLAIN, repository_in(url))
    if known:
        return attrs.evolve(known, repository=repository_in(url))
    found = _asked(base, ask) if ask else None
    return Place(found or PLAIN, repository_in(url), _api_of(found, base) if found else None)


def _host(url: str) -> tuple[str | None, str]:
    """The host in small letters, and the base of its web address."""
    if "://" not in url:
        host = url.partition(":")[0].rpartition("@")[2].lower() if is_ssh(url) else None
        return host, f"https://{host}"
    parts = urlsplit(url)
    if parts.scheme.lower() == "file" or not parts.hostname:
        return None, ""
    if is_ssh(url):
        return parts.hostname, f"https://{parts.hostname}"
    return parts.hostname, f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"


def _by_host(host: str, url: str) -> Place | None:
    if host in _HOSTS:
        forge, api_url = _HOSTS[host]
        return Place(forge, api_url=api_url)
    if host in _AZURE or host.endswith(".visualstudio.com"):
        return Place("azure-devops", api_url=_azure_api(host, url))
    if host.startswith("git-codecommit.") and ".amazonaws.com" in host:
        return Place("aws-codecommit")
    return None


def _azure_api(host: str, url: str) -> str | None:
    if host.endswith(".visualstudio.com"):
        return f"https://dev.azure.com/{quote(host.partition('.')[0])}"
    path = url.split(":v3/", 1)[-1] if ":v3/" in url else urlsplit(url).path.lstrip("/").removeprefix("v3/")
    organisation = path.partition("/")[0]
    return f"https://dev.azure.com/{organisation}" if organisation else None


def _api_of(forge: str, base: str) -> str | None:
    return f"{base}{_API_PATHS[forge]}" if forge in _API_PATHS else None


def _asked(base: str, ask: Ask) -> str | None:
    return next((forge for path, forge_in in _QUESTIONS if (forge := forge_in(ask(f"{base}{path}")))), None)


def _forgejo(answer: Answer | None) -> str | None:
    return "forgejo" if _has(answer, "version") else None


def _gitea(answer: Answer | None) -> str | None:
    return "gitea" if _has(answer, "version") else None


def _gitlab(answer: Answer | None) -> str | None:
    if answer is None:
        return None
    own = "x-gitlab-meta" in answer.headers or _has(answer, "version")
    told = answer.status == 401 and isinstance(answer.body, dict) and "401" in str(answer.body.get("message"))
    return "gitlab" if own or told else None


def _github(answer: Answer | None) -> str | None:
    if answer is None:
        return None
    return "github" if "x-github-request-id" in answer.headers or _has(answer, "installed_version") else None


def _bitbucket(answer: Answer | None) -> str | None:
    return "bitbucket-server" if _has(answer, "buildNumber") else None


def _has(answer: Answer | None, key: str) -> bool:
    return bool(answer and answer.status == 200 and isinstance(answer.body, dict) and key in answer.body)


# Forgejo answers Gitea's question too, so it is asked first.
_QUESTIONS: tuple[tuple[str, Callable[[Answer | None], str | None]], ...] = (
    ("/api/forgejo/v1/version", _forgejo),
    ("/api/v1/version", _gitea),
    ("/api/v4/version", _gitlab),
    ("/api/v3/meta", _github),
    ("/rest/api/1.0/application-properties", _bitbucket),
)
