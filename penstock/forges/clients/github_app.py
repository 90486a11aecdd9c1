"""A GitHub App: its key signs a word of minutes, for which GitHub gives a token of an hour."""

import base64
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs

from penstock.errors import InputError
from penstock.forges.clients.values import Place
from penstock.forges.clients.wire import Wire

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_LIVES = timedelta(minutes=9)  # GitHub takes ten at most, by its own clock
_EARLY = timedelta(minutes=5)


@attrs.define
class App:
    """An app by its number, with its key. Keeps the token until shortly before it expires."""

    id: str
    private_key: str = attrs.field(repr=False)
    _token: str = attrs.field(default="", repr=False)
    _until: datetime | None = None

    @classmethod
    def of(cls, secret: str) -> "App | None":
        """
        The app that a secret is about; None when it is a token.

        Raises: InputError for JSON without `app_id` and `private_key`.
        """
        if not secret.startswith("{"):
            return None
        try:
            told = json.loads(secret)
            return cls(str(told["app_id"]), str(told["private_key"]))
        except (ValueError, KeyError) as error:
            what = "the secret is neither a token nor JSON of an app"
            raise InputError(what, where="github", remedy='write {"app_id": …, "private_key": "…"}') from error

    def token(self, place: Place, link: "Link") -> str:
        """A token for one repository. Raises: ForgeAway, ForgeRefused, InputError for a key that is none."""
        now = link.clock()
        if self._until is None or now >= self._until - _EARLY:
            proof = {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {self._signed(now)}"}
            wire = Wire(place.url, proof, link)
            try:
                number = wire.get(f"/repos/{quote(place.repository, safe='/')}/installation")["id"]
                name = place.repository.rpartition("/")[2]
                made = wire.send("POST", f"/app/installations/{number}/access_tokens", {"repositories": [name]})
            finally:
                wire.close()
            self._token, self._until = str(made["token"]), _time(str(made["expires_at"]))
        return self._token

    def _signed(self, now: datetime) -> str:
        """A JSON web token, RS256. Source: RFC 7519, and GitHub's "Generating a JSON Web Token for a GitHub App"."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self.private_key.encode(), password=None)
        except (ValueError, TypeError) as error:
            raise InputError("the app's private key cannot be read", where="github", remedy="give it as PEM") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise InputError("the app's private key is no RSA key", where="github")
        since = now - timedelta(seconds=60)  # GitHub's clock may be behind
        claims = {"iat": int(since.timestamp()), "exp": int((now + _LIVES).timestamp()), "iss": self.id}
        text = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
        return f"{text}.{_base64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _part(value: object) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
