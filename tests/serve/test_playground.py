"""The chat page in a real Chromium, against a small server that says what each test wrote for it.

Needs a Chromium or Chrome on PATH, and skips with a sentence without one. `base_url` is a fixture
of its own, so that a test of the real server can put its address there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests import clients
from tests.serve.scripted import Refusal, Scripted, Step, delta, end, handler

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUESTION = '日本の首都は？ it\'s "here" & $HOME `ls` \\ 100%!\nそして二行目'


def expect(shown: Any) -> Any:
    from playwright.sync_api import expect

    return expect(shown)


@pytest.fixture
def serve() -> Iterator[Callable[[Scripted], Scripted]]:
    """Start one; all end with the test."""
    started = []

    def start(scripted: Scripted) -> Scripted:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(scripted))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        started.append((server, thread))
        scripted.url = f"http://127.0.0.1:{server.server_port}"
        return scripted

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(serve: Callable[[Scripted], Scripted]) -> Scripted:
    return serve(Scripted())


@pytest.fixture
def base_url(server: Scripted) -> str:
    """Where the page is; override it to try the real server."""
    return server.url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium or Chrome on PATH: apt-get install chromium")
    clients.borrow()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, in containers, Chromium has no sandbox to offer
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Seen:
    """What the browser did beside showing the page."""

    urls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(browser: Browser, base_url: str, seen: Seen) -> Iterator[Page]:
    """The page, open; a console error fails the test unless it takes it out of `seen`."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="ja-JP")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base_url)
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("request", lambda request: seen.urls.append(request.url))
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(f"{base_url}/playground")
    yield page
    context.close()
    assert seen.errors == []


def ask(page: Page, text: str = "こんにちは") -> None:
    page.get_by_label("Question").fill(text)
    page.get_by_label("Question").press("Enter")


def test_the_page_names_the_model_and_the_engine(page: Page) -> None:
    expect(page).to_have_title("tiny-ja · Homeport playground")
    expect(page.get_by_role("status")).to_have_text("Ready · transformers")


def test_a_server_that_loads_is_waited_for(page: Page, server: Scripted, seen: Seen) -> None:
    expect(page.get_by_role("status")).to_have_text("Ready · transformers")
    server.ready[:] = [503, 503, 200]
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("The model is loading")
    expect(page.get_by_role("status")).to_have_text("Ready · transformers")
    assert [error for error in seen.errors if "503" not in error] == []
    seen.errors.clear()


def test_an_answer_shows_before_it_ends(page: Page, server: Scripted) -> None:
    gate = threading.Event()
    server.script = [delta(content="東京"), gate, delta(content="です。"), *end()]
    ask(page)
    answer = page.get_by_role("article")
    expect(answer.locator(".text")).to_have_text("東京")
    expect(answer).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(answer.locator(".text")).to_have_text("東京です。")
    expect(answer).to_have_attribute("aria-busy", "false")


def test_the_figures_are_the_counts_of_the_usage_and_the_times_of_the_page(
    page: Page, server: Scripted
) -> None:
    server.script = [0.3, delta(content="a"), 0.5, delta(content="b"), *end(tokens=11)]
    ask(page)
    figures = page.locator(".figures")
    expect(figures).to_contain_text("11 tokens · ")
    expect(figures).to_contain_text("prompt 34 tokens")
    text = figures.inner_text()
    first, whole, speed = (
        float(re.findall(pattern, text)[0])
        for pattern in (r"after ([\d.]+) s", r"([\d.]+) s in all", r"([\d.]+) tokens/s")
    )
    assert 0.3 <= first < whole
    assert whole >= 0.8
    assert speed <= 10 / 0.5 + 1  # ten tokens after the first, in half a second at least


def test_reasoning_is_open_while_it_comes_and_folds_when_the_answer_begins(
    page: Page, server: Scripted
) -> None:
    thinking, answering = threading.Event(), threading.Event()
    server.script = [delta(reasoning_content="首都を考える"), thinking]
    server.script += [delta(content="東京"), answering, *end()]
    ask(page)
    fold = page.locator("details.reasoning")
    expect(fold).to_have_attribute("open", "")
    expect(fold).to_contain_text("首都を考える")
    thinking.set()
    expect(page.locator(".text")).to_have_text("東京")
    expect(fold).not_to_have_attribute("open", "")
    expect(fold.locator("summary")).to_contain_text("Thought for")
    answering.set()


def test_what_the_user_chose_for_reasoning_holds_for_later_answers_and_after_a_reload(
    page: Page, server: Scripted
) -> None:
    server.script = [delta(reasoning_content="hm"), delta(content="東京"), *end()]
    ask(page)
    page.locator("summary").click()
    for again in (lambda: None, page.reload):
        again()
        ask(page)
        expect(page.locator(".text").last).to_have_text("東京")
        expect(page.locator("details.reasoning").last).to_have_attribute("open", "")


def test_enter_sends_and_shift_enter_breaks_the_line(page: Page, server: Scripted) -> None:
    question = page.get_by_label("Question")
    question.fill("一")
    low = question.evaluate("node => node.clientHeight")
    question.press("Shift+Enter")
    question.type("二")
    assert question.evaluate("node => node.clientHeight") > low
    assert server.bodies == []
    question.press("Enter")
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    assert server.asked()["messages"] == [{"role": "user", "content": "一\n二"}]


def test_enter_that_ends_a_composition_does_not_send(page: Page, server: Scripted) -> None:
    question = page.get_by_label("Question")
    question.focus()
    keyboard = page.context.new_cdp_session(page)
    composing = {"text": "とうきょう", "selectionStart": 5, "selectionEnd": 5}
    keyboard.send("Input.imeSetComposition", composing)
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    keyboard.send("Input.insertText", {"text": "東京"})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **enter})
    expect(question).to_have_value("東京")
    question.evaluate(  # Safari: the composition has ended, and only the code tells
        "node => node.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229}))"
    )
    question.evaluate(
        "node => node.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true}))"
    )
    expect(page.get_by_role("article")).to_have_count(0)
    question.press("Enter")
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    assert [json.loads(body)["messages"][0]["content"] for body in server.bodies] == ["東京"]


def test_japanese_survives_both_ways_whatever_the_pieces_of_the_stream(
    page: Page, server: Scripted
) -> None:
    chunk = json.dumps(delta(content="「吾輩は猫である」🐈"), ensure_ascii=False)
    first, second = chunk.split(", ", 1)  # an event of two lines, torn between \r and \n
    server.script = [f"data:{first},\r", 0.1, "\ndata: ", *f"{second}\r\n\r\n", *end()]
    ask(page, QUESTION)
    expect(page.locator(".text")).to_have_text("「吾輩は猫である」🐈")
    expect(page.locator(".text")).to_have_attribute("lang", "ja")
    assert server.asked()["messages"] == [{"role": "user", "content": QUESTION}]
    assert page.locator(".question p").inner_text() == QUESTION


def test_every_setting_arrives_by_its_name_and_empty_ones_do_not(
    page: Page, server: Scripted
) -> None:
    expect(page).to_have_title(re.compile("tiny-ja"))
    ask(page)
    plain = {"model", "messages", "stream", "stream_options"}
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    assert set(server.asked()) == plain
    for label, value in {
        "System text": "短く答える。",
        "Reasoning language": "Japanese",
        "Max tokens": "64",
        "Temperature": "0",
        "Top p": "0.9",
        "Seed": "7",
        "Stop texts": "終\n\\n\\n",
    }.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("Reasoning effort").select_option("low")
    ask(page, "もう一度")
    expect(page.get_by_role("article").last).to_have_attribute("aria-busy", "false")
    assert server.asked() == {
        "model": "tiny-ja",
        "messages": [
            {"role": "system", "content": "短く答える。"},
            {"role": "user", "content": "こんにちは"},
            {"role": "assistant", "content": "はい。"},
            {"role": "user", "content": "もう一度"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_language": "Japanese",
        "reasoning_effort": "low",
        "max_tokens": 64,
        "temperature": 0,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["終", "\n\n"],
    }


def test_stop_closes_the_connection_and_keeps_what_came(page: Page, server: Scripted) -> None:
    server.script = [delta(content="東京"), threading.Event()]
    ask(page)
    expect(page.locator(".text")).to_have_text("東京")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".figures")).to_contain_text("stopped by you")
    expect(page.locator(".text")).to_have_text("東京")
    assert server.left.wait(5)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([delta(content="あ"), *end("length")], "cut off at the most tokens allowed"),
        ([delta(reasoning_content="あ"), *end("length")], "none was left for the answer"),
        (
            [delta(content="あ"), *end("length", homeport={"finish_reason": "deadline"})],
            "cut off at the server's time limit",
        ),
        ([delta(content="あ")], "the connection ended before the answer did"),
    ],
)
def test_an_answer_that_is_not_whole_says_why(
    page: Page, server: Scripted, script: list[Step], said: str
) -> None:
    server.script = script
    ask(page)
    expect(page.locator(".figures .finish")).to_contain_text(said)


def test_an_error_is_a_sentence_with_when_to_try_again(
    page: Page, server: Scripted, seen: Seen
) -> None:
    server.script = Refusal(
        429, {"message": "All places are taken.", "param": None, "status": 429, "retry_after": 7}
    )
    ask(page)
    expect(page.locator(".problem")).to_have_text("All places are taken. Try again in 7 seconds.")
    server.script = [delta(content="はい。"), *end()]
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".text")).to_have_text("はい。")
    assert len(seen.errors) == 1  # the browser's own line about a 429
    seen.errors.clear()


def test_an_error_within_the_stream_stands_beside_what_came(page: Page, server: Scripted) -> None:
    server.script = [
        delta(content="東"),
        {"error": {"message": "The engine ended.", "status": 500}},
    ]
    ask(page)
    expect(page.locator(".problem")).to_have_text("The engine ended.")
    expect(page.locator(".text")).to_have_text("東")


def test_editing_replaces_the_last_question_and_clear_forgets_all(
    page: Page, server: Scripted
) -> None:
    ask(page, "一")
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Question")).to_have_value("一")
    ask(page, "二")
    expect(page.locator(".question p")).to_have_text(["二"])
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Clear").click()
    ask(page, "三")
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    sent = [[m["content"] for m in json.loads(body)["messages"]] for body in server.bodies]
    assert sent == [["一"], ["二"], ["三"]]


def test_the_copied_curl_sends_the_same_body_and_names_no_key(page: Page, server: Scripted) -> None:
    page.get_by_label("API key").first.fill("s3cret")
    page.get_by_label("System text").fill("It's 'quoted'; $PATH と \\n")
    ask(page, QUESTION)
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Copy curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert "s3cret" not in command
    assert "日本の首都は" in command
    ran = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": "/usr/bin:/bin", "API_KEY": "s3cret"},
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert "はい。" in ran.stdout.decode()
    assert server.bodies[0] == server.bodies[1]
    assert server.keys == ["Bearer s3cret"] * 2
    assert "s3cret" not in page.evaluate("JSON.stringify(localStorage) + document.cookie")


def compare(page: Page, url: str) -> None:
    page.get_by_label("Compare with a second target").check()
    second = page.get_by_role("group", name="Second target")
    second.get_by_label("Base URL").fill(url)
    second.get_by_label("Base URL").blur()


def test_two_targets_stream_side_by_side_each_at_its_own_pace(
    page: Page, server: Scripted, serve: Callable[[Scripted], Scripted], seen: Seen
) -> None:
    gate = threading.Event()
    other = serve(Scripted(model="base", cors=True))
    server.script = [delta(content="左"), gate, *end(tokens=5)]
    other.script = [delta(content="右"), *end(tokens=9)]
    compare(page, f"{other.url}/v1/")
    expect(page.locator("#models-1 option")).to_have_attribute("value", "base")
    ask(page)
    left, right = page.get_by_role("article").nth(0), page.get_by_role("article").nth(1)
    expect(right.locator(".figures")).to_contain_text("9 tokens")
    expect(left).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(left.locator(".figures")).to_contain_text("5 tokens")
    expect(right.locator(".who")).to_have_text(f"base · {other.url.removeprefix('http://')}")
    wide = [left.bounding_box(), right.bounding_box()]
    page.set_viewport_size({"width": 390, "height": 844})
    narrow = [left.bounding_box(), right.bounding_box()]
    assert wide[0] and wide[1] and narrow[0] and narrow[1]
    assert wide[0]["y"] == wide[1]["y"]
    assert narrow[0]["y"] + narrow[0]["height"] <= narrow[1]["y"]
    page.set_viewport_size({"width": 1280, "height": 800})
    ask(page, "次")
    expect(page.get_by_role("article")).to_have_count(4)
    expect(page.get_by_role("article").last).to_have_attribute("aria-busy", "false")
    expect(left).to_have_attribute("aria-busy", "false")
    for target, said in ((server, "左"), (other, "右")):  # each has its own past
        assert [m["content"] for m in target.asked()["messages"]] == ["こんにちは", said, "次"]
    assert {url.split("/")[2] for url in seen.urls if not url.startswith("data:")} == {
        server.url.removeprefix("http://"),
        other.url.removeprefix("http://"),
    }


def test_a_target_that_does_not_allow_this_origin_is_explained(
    page: Page, server: Scripted, serve: Callable[[Scripted], Scripted], seen: Seen
) -> None:
    other = serve(Scripted())
    compare(page, other.url)
    ask(page)
    problem = page.locator(".problem").nth(1)
    expect(problem).to_contain_text(f"allow this page's origin, {server.url} (CORS)")
    expect(page.locator(".text").first).to_have_text("はい。")
    assert all("CORS" in error or "ERR_FAILED" in error for error in seen.errors)
    seen.errors.clear()


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/score", "/score"),
    ],
)
def test_a_base_url_may_end_at_the_server_at_v1_or_at_the_route(
    page: Page, server: Scripted, base: str, path: str
) -> None:
    page.get_by_label("Base URL").first.fill(server.url + base)
    ask(page)
    expect(page.locator(".text")).to_have_text("はい。")
    assert server.paths == [path]


@pytest.mark.parametrize(
    "url", ["localhost:5002", "http://a:b@127.0.0.1", "http://127.0.0.1/?key=1"]
)
def test_a_base_url_that_cannot_be_asked_is_refused_beforehand(
    page: Page, server: Scripted, url: str
) -> None:
    compare(page, url)
    ask(page)
    expect(page.get_by_role("article")).to_have_count(0)
    assert server.bodies == []


def test_a_server_with_a_key_asks_for_it_and_the_tab_alone_keeps_it(
    page: Page, server: Scripted, seen: Seen
) -> None:
    server.key = "s3cret-of-this-server"
    page.reload()
    status, field = page.get_by_role("status"), page.get_by_label("API key").first
    expect(status).to_have_text("The server asks for its key; enter it as API key in the settings.")
    expect(field).to_be_focused()
    field.fill("another")
    field.press("Tab")
    expect(status).to_have_text("The server did not take this key.")
    field.fill(server.key)
    field.press("Tab")
    for again in (lambda: None, page.reload):
        again()
        expect(status).to_have_text("Ready · transformers")
        expect(page).to_have_title("tiny-ja · Homeport playground")
    ask(page)
    expect(page.locator(".text")).to_have_text("はい。")
    assert server.keys == [f"Bearer {server.key}"]
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_label("API key").first).to_have_value("")
    assert all("401" in error for error in seen.errors)
    seen.errors.clear()


def test_script_in_an_answer_is_text(page: Page, server: Scripted) -> None:
    text = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    server.script = [delta(reasoning_content=text), delta(content=text)]
    server.script += [delta(content=f"\n```html\n{text}\n```\n後"), *end()]
    ask(page, text)
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".text pre")).to_have_text(text)
    expect(page.locator(".text > div")).to_have_text([text, "後"])
    expect(page.locator(".reasoning > div")).to_have_text(text)
    expect(page.locator("#talk img, #talk script, #announce img")).to_have_count(0)
    expect(page).to_have_title("tiny-ja · Homeport playground")


def test_the_page_asks_nobody_but_its_own_server(page: Page, base_url: str, seen: Seen) -> None:
    ask(page)
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    paths = {url.removeprefix(base_url) for url in seen.urls if not url.startswith("data:")}
    assert paths == {"/playground", "/readyz", "/v1/models", "/v1/chat/completions"}


def test_on_a_phone_the_settings_open_over_the_page_and_nothing_is_wider_than_it(
    page: Page,
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Settings").press("Enter")
    expect(page.get_by_label("Seed")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    ask(page, "あ" * 300)
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
