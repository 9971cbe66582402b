"""`make audit` with the real pip-audit, and a small service of its kind that knows one flaw."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts import audit
from scripts.errors import CommandError, MachineError

FLAW = {
    "id": "PYSEC-2026-1",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.99"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """OSV's interface."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        flawed = asked["package"]["name"] == "idna" and asked["version"] == "3.1"
        body = json.dumps({"vulns": [FLAW]} if flawed else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """Two locks that hold two versions of one package."""
    found = {"host.txt": {"idna": "3.1", "six": "1.17.0"}, "tests/x.txt": {"idna": "3.99"}}
    monkeypatch.setattr(audit, "locked", lambda root: found)
    monkeypatch.setattr("sys.argv", ["audit"])
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("service", "locks")
def test_a_known_flaw_is_shown_with_what_mends_it_and_the_lock_that_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CommandError, match="1 known vulnerabilities") as caught:
        audit.main()
    assert caught.value.exit_code == 4
    assert capsys.readouterr().out.splitlines() == [
        "package  version  id            mended in  lock",
        "idna     3.1      PYSEC-2026-1  3.99       host.txt",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("service")
def test_without_a_flaw_all_that_was_looked_at_is_counted(
    locks: dict[str, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    locks["host.txt"]["idna"] = "3.98"
    audit.main()
    assert "3 packages of 2 locks, no known vulnerability" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("locks")
def test_a_service_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:1/")
    with pytest.raises(
        MachineError, match=r"nothing was audited, since pip-audit failed .*refused"
    ):
        audit.main()


SKIPPED = {"name": "six", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        # pip-audit itself calls both of them free of vulnerabilities
        ([SKIPPED], "nothing was audited, since the index"),
        ([SKIPPED, {"name": "idna", "version": "1", "vulns": []}], "not audited.*: six"),
    ],
)
@pytest.mark.usefixtures("locks")
def test_packages_that_the_service_does_not_know_are_not_passed_over(
    told: list[dict[str, object]], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ask", lambda pins: told)
    with pytest.raises(MachineError, match=sentence):
        audit.main()
