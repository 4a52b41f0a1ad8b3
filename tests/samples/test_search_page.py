"""The page of the visual search in a real browser, headless Chromium."""

from __future__ import annotations

import shutil

import pytest

WHY = "needs the sample's own packages: run `make test-samples`"
for package in ("fastapi", "lancedb", "playwright"):
    pytest.importorskip(package, reason=WHY)

from tests.samples.searching import page, wait_until_indexed  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

DROP = """([bytes, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
    document.querySelector("#drop").dispatchEvent(
        new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, and tests in containers often run as root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tiles, server, tmp_path_factory):
    with page(tiles, tmp_path_factory.mktemp("index"), server.target, "--model", "lite0") as client:
        wait_until_indexed(client, 60)
        yield client


@pytest.fixture
def opened(browser, site):
    """The page with its first photos, and every address that it requested."""
    tab = browser.new_page()
    tab.set_default_timeout(30_000)
    asked, wrong = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(error))
    tab.goto(str(site.base_url))
    tab.wait_for_selector(".photo")
    yield tab, asked
    tab.close()
    assert wrong == []


def similarities(tab) -> list[float]:
    tab.wait_for_selector(".similarity")
    return [float(text.split()[-1]) for text in tab.locator(".similarity").all_inner_texts()]


def drop(tab, data: bytes, name: str) -> None:
    tab.evaluate(DROP, [list(data), name])


def test_a_dropped_photo_shows_its_neighbours_with_their_similarity(opened, tiles):
    tab, asked = opened
    drop(tab, (tiles / "0030.jpg").read_bytes(), "mine.jpg")
    values = similarities(tab)
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1.0, abs=2e-3)
    assert tab.locator(".photo").first.get_attribute("data-path") == "0030.jpg"
    assert tab.locator("#asked-name").inner_text() == "mine.jpg"
    # The page loads nothing from other sites.
    here = tab.url.rstrip("/")
    assert [url for url in asked if not url.startswith((here, "data:", f"blob:{here}"))] == []


def test_a_clicked_picture_shows_its_neighbours_and_the_way_back(opened):
    tab, _ = opened
    path = tab.locator(".photo").nth(2).get_attribute("data-path")
    tab.locator(".photo").nth(2).click()
    assert len(similarities(tab)) == 12
    assert tab.locator("#asked-name").inner_text() == path
    tab.locator("#back").click()
    tab.locator(".photo").nth(59).wait_for(state="attached")
    assert tab.locator(".similarity").count() == 0


def test_a_corrupt_file_is_named_and_the_page_goes_on(opened, tiles):
    tab, _ = opened
    drop(tab, (tiles / "broken.jpg").read_bytes(), "broken.jpg")
    tab.wait_for_selector("#error:not([hidden])")
    assert "broken.jpg: corrupt" in tab.locator("#error").inner_text()
    drop(tab, (tiles / "0031.jpg").read_bytes(), "good.jpg")
    assert similarities(tab)
    assert tab.locator("#error").is_hidden()


def test_a_file_can_be_chosen_without_a_mouse_drag(opened, tiles):
    tab, _ = opened
    tab.set_input_files("#file", tiles / "0032.jpg")
    assert similarities(tab)[0] == pytest.approx(1.0, abs=2e-3)


def test_with_the_server_down_the_page_says_so_and_clicks_still_work(opened, server, tiles):
    tab, _ = opened
    server.stop()
    try:
        drop(tab, (tiles / "0030.jpg").read_bytes(), "mine.jpg")
        tab.wait_for_selector("#error:not([hidden])")
        assert server.target in tab.locator("#error").inner_text()
        tab.wait_for_selector("#notice:not([hidden])")
        assert "does not answer" in tab.locator("#notice").inner_text()
        tab.locator(".photo").first.click()
        assert similarities(tab)
    finally:
        server.start()
    tab.wait_for_selector("#notice", state="hidden")
    drop(tab, (tiles / "0030.jpg").read_bytes(), "mine.jpg")
    tab.locator("#asked-name", has_text="mine.jpg").wait_for()
    assert tab.locator("#error").is_hidden()


def test_a_page_whose_service_has_gone_says_so(browser, some_photos, server, tmp_path):
    tab = browser.new_page()
    with page(some_photos, tmp_path / "index", server.target, "--model", "lite0") as client:
        wait_until_indexed(client, 6)
        tab.goto(str(client.base_url))
        tab.wait_for_selector(".photo")
    tab.locator(".photo").first.click()
    tab.wait_for_selector("#error:not([hidden])")
    assert "service of this page does not answer" in tab.locator("#error").inner_text()
    tab.close()
