"""What made-up history is made of: people, titles, services, and what scanners say."""

from attrs import frozen

NAMES = (
    *("shop", "billing", "search", "payments", "catalog", "accounts", "inventory", "shipping", "reports", "gateway"),
    *("mailer", "images", "pricing", "loyalty", "returns", "fraud", "ledger", "support", "mobile-api", "warehouse"),
)
AUTHORS = (
    *("Ada Moreno", "Kofi Asante", "Lin Wei", "Sara Lind", "Jonas Brandt", "Priya Raman", "Tomás Rey", "Aiko Mori"),
    *("Nadia Haddad", "Owen Clarke", "Wilhelmina van den Heuvel-Oosterbaan", "Lê Thị Mai"),
)
TITLES = (
    *("Show the price with tax", "Round cents once, at the end", "Keep the basket for a week"),
    *("Import orders from the old system", "Send the receipt as HTML too", "Search by article number"),
    *("Let customers change their address", "Log slow queries", "Pay by invoice", "Tidy up the checkout"),
    *("Raise the limits of the export", "Cache what never changes", "Retry when the carrier is away"),
    *("Update dependencies", "Take the old endpoint away", "Say which field is wrong"),
)
MODULES = ("orders", "export", "customers", "server", "codes", "mail", "settings", "sessions", "views", "jobs", "api")
TESTS = ("total", "basket", "tax", "address", "invoice", "search", "receipt", "login", "export", "retry", "limits")
ASPECTS = ("is_rounded_once", "may_be_empty", "by_country", "of_a_big_order", "without_rights", "twice", "in_utc")


@frozen
class Rule:
    """A rule of a scanner. often: how often it is met beside the others of its tool."""

    id: str
    severity: str
    message: str
    cwe: str
    package: str | None = None
    fixed_version: str | None = None
    often: float = 1.0


@frozen
class Tool:
    """A scanner as a step of a made-up pipeline."""

    name: str
    version: str
    category: str
    step: str
    step_type: str
    help_base: str
    rules: tuple[Rule, ...]
    typical_s: float


_RARITY = {"critical": 0.12, "high": 0.4, "medium": 1.0, "low": 1.0, "info": 1.0}


def _code(id: str, severity: str, cwe: int, message: str, often: float = 1.0) -> Rule:
    return Rule(id, severity, message, f"CWE-{cwe}", often=often)


def _cve(id: str, severity: str, cwe: int, installed: str, fixed: str | None) -> Rule:
    package, _, version = installed.rpartition("@")
    name = package.rpartition("/")[2]
    fix = f"upgrade to {fixed}" if fixed else "no version mends it yet"
    message = f"{name} {version} is vulnerable: {fix}."
    return Rule(id, severity, message, f"CWE-{cwe}", installed, fixed, _RARITY[severity])


BANDIT = Tool(
    "bandit",
    "1.8.6",
    "sast",
    "sast",
    "step.scan_sast",
    "https://bandit.readthedocs.io/en/1.8.6/plugins/",
    (
        _code("B301", "critical", 502, "Pickle of data that came over the network.", 0.25),
        _code("B608", "high", 89, "Possible SQL injection through string-based query construction.", 0.7),
        _code("B602", "high", 78, "subprocess call with shell=True identified, security issue.", 0.6),
        _code("B501", "high", 295, "Call to httpx with verify=False disabling SSL certificate checks.", 0.4),
        _code("B324", "medium", 327, "Use of weak MD5 hash for security.", 1.4),
        _code("B104", "medium", 605, "Possible binding to all interfaces.", 1.2),
        _code("B113", "medium", 400, "Call to requests without timeout.", 1.6),
        _code("B311", "low", 330, "Standard pseudo-random generators are not suitable for security purposes.", 2.2),
        _code("B110", "low", 703, "Try, Except, Pass detected.", 1.5),
        _code("B105", "info", 259, "Possible hardcoded password: 'changeme'.", 1.2),
    ),
    9.0,
)
SEMGREP = Tool(
    "semgrep",
    "1.120.0",
    "sast",
    "sast",
    "step.scan_sast",
    "https://semgrep.dev/r/",
    (
        _code("javascript.eval-of-request", "critical", 95, "A value of the request is evaluated as code.", 0.2),
        _code("javascript.raw-sql", "high", 89, "A query is put together from values of the request.", 0.7),
        _code("javascript.open-redirect", "high", 601, "The redirect's target comes from the request.", 0.5),
        _code("javascript.unsafe-html", "high", 79, "Text of the user becomes HTML without being escaped.", 0.8),
        _code("javascript.weak-cipher", "medium", 327, "AES in ECB mode shows repetitions of the text.", 0.9),
        _code("javascript.no-csrf", "medium", 352, "A form is taken without a token against forgery.", 1.1),
        _code("javascript.cookie-not-secure", "medium", 614, "The cookie is sent over plain HTTP too.", 1.3),
        _code("javascript.console-log", "low", 532, "Something is written to the console in production.", 3.5),
        _code("javascript.todo-in-auth", "info", 546, "A comment says that authentication is unfinished.", 0.8),
    ),
    14.0,
)
GRYPE = Tool(
    "grype",
    "0.92.0",
    "deps",
    "deps",
    "step.scan_deps",
    "https://nvd.nist.gov/vuln/detail/",
    (
        _cve("CVE-2021-44228", "critical", 917, "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", "2.15.0"),
        _cve("CVE-2020-14343", "critical", 20, "pkg:pypi/pyyaml@5.3.1", "5.4"),
        _cve("CVE-2022-22817", "critical", 74, "pkg:pypi/pillow@8.4.0", "9.0.0"),
        _cve("CVE-2024-34069", "high", 352, "pkg:pypi/werkzeug@2.3.4", "3.0.3"),
        _cve("CVE-2023-43804", "high", 200, "pkg:pypi/urllib3@1.26.15", "1.26.17"),
        _cve("CVE-2022-40897", "high", 1333, "pkg:pypi/setuptools@65.3.0", "65.5.1"),
        _cve("CVE-2023-32681", "medium", 200, "pkg:pypi/requests@2.30.0", "2.31.0"),
        _cve("CVE-2024-35195", "medium", 670, "pkg:pypi/requests@2.31.0", "2.32.0"),
        _cve("CVE-2023-45803", "medium", 200, "pkg:pypi/urllib3@1.26.17", "1.26.18"),
        _cve("CVE-2018-20225", "low", 20, "pkg:pypi/pip@23.1", None),
    ),
    6.0,
)
TRIVY = Tool(
    "trivy",
    "0.70.0",
    "container",
    "image-scan",
    "step.scan_container",
    "https://avd.aquasec.com/nvd/",
    (
        _cve("CVE-2024-3094", "critical", 506, "pkg:deb/debian/xz-utils@5.6.0", "5.6.1"),
        _cve("CVE-2023-4911", "high", 787, "pkg:deb/debian/libc6@2.36-9", "2.36-9+deb12u3"),
        _cve("CVE-2023-38545", "high", 787, "pkg:deb/debian/curl@7.88.1-10", "7.88.1-10+deb12u4"),
        _cve("CVE-2023-5363", "high", 684, "pkg:deb/debian/openssl@3.0.9-1", "3.0.11-1"),
        _cve("CVE-2023-31484", "medium", 295, "pkg:deb/debian/perl@5.36.0-7", None),
        _cve("CVE-2023-4641", "medium", 303, "pkg:deb/debian/passwd@4.13", None),
        _cve("CVE-2016-2781", "low", 20, "pkg:deb/debian/coreutils@9.1-1", None),
        _cve("CVE-2011-3374", "low", 347, "pkg:deb/debian/apt@2.6.1", None),
        _cve("CVE-2005-2541", "info", 732, "pkg:deb/debian/tar@1.34", None),
    ),
    11.0,
)
REASONS = (
    "the value never comes from a user",
    "behind the internal proxy only",
    "accepted until the module is replaced",
    "test code",
)
"""Why somebody suppressed a finding."""
