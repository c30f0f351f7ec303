"""The live page: what it serves, to whom, and that it leaves no trace in the run."""

import http.client
import io
import json
import threading

import pytest
from fake_run import FAILED_ID, write_fake_run

from galbatch.cli.main import main
from galbatch.report.live import LivePage


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = write_fake_run(tmp_path_factory.mktemp("runs") / "<b>live<b>.run").root
    before = {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*")}
    page = LivePage(root)
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    yield page
    page.shutdown()
    page.server_close()
    thread.join()
    assert {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*")} == before


def ask(page, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_state_has_progress_grades_and_the_latest_sources(served):
    answer, body = ask(served, "/state.json")
    state = json.loads(body)
    assert answer.status == 200 and state["state"] == "finished" and state["planned"] == 6
    assert state["grades"] == {"good": 5, "caution": 0, "do not use": 1} and state["failed"] == 1
    cards = {card["id"]: card for card in state["cards"]}
    assert len(cards) == 6 and cards[str(FAILED_ID)]["reasons"] == ["OFF_IMAGE"]
    assert next(iter(cards)) == "1004", "the latest batch comes first"
    assert str(served.run.parent) not in body.decode(), "no path of the machine"


def test_pictures_are_strips_of_the_sources(served):
    from PIL import Image

    answer, body = ask(served, "/picture/f444w/1")
    image = Image.open(io.BytesIO(body))
    assert answer.getheader("Content-Type") == "image/webp" and image.size == (64 * 6, 64)
    assert body != ask(served, "/picture/f200w/1")[1]


@pytest.mark.parametrize(
    "path",
    ["/picture/f444w/3", "/picture/f999w/0", "/picture/f444w/99", "/picture/f444w/x", "/../manifest.json"],
)
def test_what_is_not_there_is_not_found(served, path):
    answer, body = ask(served, path)
    assert (answer.status, body) == (404, b"")


def test_only_this_machine_is_answered(served):
    """A page elsewhere whose name leads to 127.0.0.1 could read the run otherwise."""
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/state.json", Host="evil.example:80")[0].status == 403
    answer, _ = ask(served, "/", Host=f"localhost:{served.server_port}")
    assert answer.status == 200 and "default-src 'none'" in answer.getheader("Content-Security-Policy")


def test_a_folder_that_is_no_run_is_said_at_once(tmp_path, capsys):
    assert main(["watch", str(tmp_path), "--live"]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.ci("selenium")
def test_the_page_shows_it(served, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(served.url)
    seen = "return [...document.images].filter((image) => image.naturalWidth).length === 5"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(seen))
    text = browser.find_element("tag name", "main").text
    assert "<b>live<b>.run" in text and "6 of 6 sources, finished" in text and "OFF_IMAGE" in text
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
