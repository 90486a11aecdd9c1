# Each weak line follows a comment that names what finds it; every other line must stay without findings.
# ruff: noqa
import hashlib
import os
import pickle
import random
import secrets
import shlex
import sqlite3
import ssl
import subprocess
import tarfile
import tempfile
from pathlib import Path

import flask
import httpx
import jinja2
import jwt
import lxml.etree
import paramiko
import requests
import yaml
from Crypto.Cipher import AES, DES
from flask import redirect, render_template_string, request, send_file, url_for

app = flask.Flask(__name__)


def commands(name: str) -> None:
    # finds: python.shell-true
    subprocess.run(f"ls {name}", shell=True)
    # finds: python.os-system
    os.system("rm " + name)
    subprocess.run(["ls", name])
    subprocess.run("make all", shell=True)
    os.system("make all")


@app.route("/run")
def from_request() -> str:
    command = request.args["command"]
    # finds: python.request-to-command, python.os-system
    os.system("sh " + command)
    # finds: python.request-to-command, python.shell-true
    subprocess.run(command, shell=True)
    # finds: python.request-to-eval, python.eval
    eval(request.args["formula"])
    # finds: python.path-traversal
    open("/srv/" + request.args["file"])
    # finds: python.path-traversal
    send_file(request.args["file"])
    # finds: python.server-side-request-forgery
    requests.get(request.args["url"], timeout=5)
    # finds: python.shell-true
    subprocess.run("ls " + shlex.quote(command), shell=True)
    open("/srv/" + os.path.basename(request.args["file"]))
    # finds: python.open-redirect
    return redirect(request.args["next"])


def good_redirect() -> object:
    return redirect(url_for("index", page=request.args["page"]))


def templates(text: str) -> None:
    # finds: python.template-injection
    render_template_string("<p>" + text)
    render_template_string("<p>{{ text }}", text=text)
    # finds: python.jinja-no-autoescape
    jinja2.Environment(autoescape=False)
    jinja2.Environment(autoescape=True)


def sql(db: sqlite3.Connection, name: str, executor: object) -> None:
    # finds: python.sql-injection
    db.execute(f"SELECT * FROM users WHERE name = '{name}'")
    # finds: python.sql-injection
    db.execute("SELECT * FROM users WHERE name = '%s'" % name)
    # finds: python.sql-injection
    db.execute("DELETE FROM users WHERE name = '" + name + "'")
    # finds: python.sql-injection
    db.execute("UPDATE users SET name = '{}'".format(name))
    query = f"INSERT INTO users VALUES ('{name}')"
    # finds: python.sql-injection
    db.execute(query)
    db.execute("SELECT * FROM users WHERE name = ?", (name,))
    executor.execute(f"hello {name}")


def code(text: str) -> None:
    # finds: python.eval
    eval(text)
    # finds: python.eval
    exec(compile(text, "x", "exec"))
    eval("1 + 1")


class Own(yaml.SafeLoader):
    pass


def reading(stream: bytes, loader: type) -> None:
    # finds: python.yaml-load
    yaml.load(stream, Loader=yaml.Loader)
    # finds: python.yaml-load
    yaml.load(stream)
    # finds: python.yaml-load
    yaml.unsafe_load(stream)
    yaml.safe_load(stream)
    yaml.load(stream, Loader=yaml.SafeLoader)
    yaml.load(stream, yaml.CSafeLoader)
    yaml.load(stream, Loader=Own)
    # finds: python.yaml-own-loader
    yaml.load(stream, Loader=loader)
    # finds: python.unpickle
    pickle.loads(stream)
    pickle.dumps(stream)
    # finds: python.xml-entities
    lxml.etree.XMLParser(resolve_entities=True)
    lxml.etree.XMLParser(resolve_entities=False)


def hashes(data: bytes, key: bytes) -> None:
    # finds: python.weak-hash
    hashlib.md5(data)
    # finds: python.weak-hash
    hashlib.new("sha1", data)
    hashlib.md5(data, usedforsecurity=False)
    hashlib.sha256(data)
    # finds: python.weak-cipher
    DES.new(key)
    # finds: python.weak-cipher
    AES.new(key, AES.MODE_ECB)
    AES.new(key, AES.MODE_GCM)


def randomness() -> None:
    # finds: python.insecure-random
    session_token = "".join(random.choice("abc") for _ in range(20))
    # finds: python.insecure-random
    otp = random.randint(0, 999999)
    dice = random.randint(1, 6)
    token = secrets.token_hex()


# finds: python.hard-coded-secret
DB_PASSWORD = "correct-horse-battery"
# finds: python.hard-coded-secret
app.config["SECRET_KEY"] = "f3b1c9d0e2a4"
# finds: python.hard-coded-secret
connection = connect(user="shop", password="correct-horse-battery")
PASSWORD = os.environ["PASSWORD"]
PASSWORD_FIELD = "password-field"
EXAMPLE_PASSWORD = "changeme-please"
PASSWORD = ""


def servers(address: str) -> None:
    # finds: python.debug-mode
    app.run(debug=True)
    # finds: python.bind-all-interfaces
    app.run(host="0.0.0.0")
    app.run(host="127.0.0.1", debug=False)


def tls(context: ssl.SSLContext, url: str, session: requests.Session, path: str) -> None:
    # finds: python.tls-unverified
    requests.get(url, verify=False, timeout=3)
    # finds: python.tls-unverified
    httpx.get(url, verify=False)
    # finds: python.tls-unverified
    session.verify = False
    # finds: python.tls-unverified
    ssl._create_unverified_context()
    # finds: python.tls-unverified
    context.check_hostname = False
    # finds: python.request-without-timeout
    requests.get(url)
    requests.get(url, timeout=3, verify="ca.pem")
    session.verify = True


def tokens(text: str, key: str) -> None:
    # finds: python.jwt-unverified
    jwt.decode(text, options={"verify_signature": False})
    # finds: python.jwt-unverified
    jwt.decode(text, key, algorithms=["HS256", "none"])
    jwt.decode(text, key, algorithms=["HS256"])


def files(path: Path) -> None:
    # finds: python.archive-extract
    tarfile.open(path).extractall()
    with tarfile.open(path) as archive:
        # finds: python.archive-extract
        archive.extractall("there")
    with tarfile.open(path) as archive:
        archive.extractall("there", filter="data")
    # finds: python.mktemp
    tempfile.mktemp()
    tempfile.mkstemp()
    # finds: python.world-writable
    os.chmod(path, 0o777)
    os.chmod(path, 0o755)
    path.chmod(0o640)


def ssh(client: paramiko.SSHClient) -> None:
    # finds: python.ssh-unknown-host
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
