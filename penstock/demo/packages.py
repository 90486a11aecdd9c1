"""The packages of made-up projects: real names with versions that were really released, oldest first."""

from attrs import frozen


@frozen
class Package:
    """A package, the versions that a project may have had, and its licence. namespace: "" for none."""

    ecosystem: str
    namespace: str
    name: str
    versions: tuple[str, ...]
    licence: str


def _of(ecosystem: str, licence: str, *named: tuple[str, str]) -> tuple[Package, ...]:
    found = []
    for full, versions in named:
        namespace, _, name = full.rpartition("/")
        found.append(Package(ecosystem, namespace, name, tuple(versions.split()), licence))
    return tuple(found)


LOG4J = Package(
    "maven",
    "org.apache.logging.log4j",
    "log4j-core",
    ("2.13.3", "2.14.1", "2.16.0", "2.17.1", "2.20.0"),
    "Apache-2.0",
)
JAVA = (
    LOG4J,
    *_of(
        "maven",
        "Apache-2.0",
        ("org.apache.logging.log4j/log4j-api", "2.13.3 2.14.1 2.17.1"),
        ("com.fasterxml.jackson.core/jackson-databind", "2.12.3 2.13.4 2.15.2 2.17.0"),
        ("com.fasterxml.jackson.core/jackson-core", "2.12.3 2.13.4 2.15.2"),
        ("org.springframework/spring-core", "5.3.18 5.3.27 6.0.9"),
        ("org.springframework/spring-webmvc", "5.3.18 5.3.27 6.0.9"),
        ("org.yaml/snakeyaml", "1.26 1.33 2.0"),
        ("com.google.guava/guava", "30.1-jre 31.1-jre 32.1.2-jre"),
        ("org.apache.commons/commons-text", "1.9 1.10.0"),
        ("commons-io/commons-io", "2.7 2.11.0 2.14.0"),
        ("io.netty/netty-codec-http", "4.1.68.Final 4.1.94.Final 4.1.108.Final"),
        ("ch.qos.logback/logback-classic", "1.2.3 1.2.11 1.4.14"),
        ("org.hibernate.orm/hibernate-core", "5.6.5.Final 6.2.7.Final"),
    ),
)
JAVASCRIPT = _of(
    "npm",
    "MIT",
    ("express", "4.17.1 4.18.2 4.19.2"),
    ("lodash", "4.17.19 4.17.21"),
    ("@angular/core", "14.2.0 15.2.9 17.3.0"),
    ("axios", "0.21.1 1.6.0 1.7.4"),
    ("minimist", "1.2.5 1.2.8"),
    ("semver", "7.3.5 7.5.4"),
    ("debug", "2.6.9 4.3.4"),
    ("ws", "7.4.5 8.13.0 8.17.1"),
    ("follow-redirects", "1.14.7 1.15.6"),
    ("json5", "2.2.1 2.2.3"),
    ("qs", "6.5.2 6.11.0"),
    ("tough-cookie", "4.0.0 4.1.3"),
    ("body-parser", "1.19.0 1.20.2"),
)
PYTHON = _of(
    "pypi",
    "BSD-3-Clause",
    ("django", "3.2.18 4.2.7 4.2.16 5.0.9"),
    ("requests", "2.30.0 2.31.0 2.32.3"),
    ("urllib3", "1.26.15 1.26.18 2.2.2"),
    ("pyyaml", "5.3.1 5.4.1 6.0.1"),
    ("jinja2", "2.11.3 3.1.2 3.1.4"),
    ("werkzeug", "2.2.2 2.3.8 3.0.3"),
    ("pillow", "8.4.0 9.5.0 10.3.0"),
    ("cryptography", "39.0.1 41.0.6 42.0.5"),
    ("sqlalchemy", "1.4.46 2.0.25"),
    ("setuptools", "65.3.0 70.0.0"),
    ("certifi", "2022.12.7 2023.7.22 2024.7.4"),
    ("idna", "3.4 3.7"),
)
SYSTEM = _of(
    "deb",
    "GPL-2.0-or-later",
    ("debian/openssl", "3.0.9-1 3.0.11-1~deb12u2 3.0.13-1~deb12u1"),
    ("debian/libc6", "2.36-9 2.36-9+deb12u3 2.36-9+deb12u7"),
    ("debian/curl", "7.88.1-10 7.88.1-10+deb12u4 7.88.1-10+deb12u6"),
    ("debian/xz-utils", "5.4.1-0.2 5.6.1+really5.4.5-1"),
    ("debian/zlib1g", "1:1.2.13.dfsg-1"),
    ("debian/perl", "5.36.0-7 5.36.0-7+deb12u1"),
    ("debian/passwd", "1:4.13+dfsg1-1"),
    ("debian/coreutils", "9.1-1"),
    ("debian/apt", "2.6.1"),
    ("debian/tar", "1.34+dfsg-1.2"),
    ("debian/bash", "5.2.15-2"),
    ("debian/ca-certificates", "20230311"),
)
