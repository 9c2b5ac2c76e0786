"""Sign-in to the console: by the demo's link, or by a token in a form."""

from __future__ import annotations

import jwt
from playwright.async_api import BrowserContext, Page, expect

from tests.edges import under_load
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage, start, storage

pytestmark = needs_chromium

REFUSED = "status of 401"
# A tab that answers late, and one that would wait for it for longer than the test.
BUSY = """
const post = BroadcastChannel.prototype.postMessage;
BroadcastChannel.prototype.postMessage = function (message) { setTimeout(() => post.call(this, message), 700); };
"""
PATIENT = "const wait = setTimeout; setTimeout = (act, ms, ...rest) => wait(act, ms === 3000 ? 60_000 : ms, ...rest);"


async def test_a_link_signs_in_and_leaves_no_token_in_the_address_or_the_history(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The token of `#token=` is gone from the address at once, is kept in this tab, and survives a reload."""
    console = await ConsolePage(page, stand, user).open("/ops")
    assert page.url == f"{stand.url}/#/ops"
    assert list(await storage(page)) == ["runcast:token"]
    assert await page.evaluate("JSON.stringify(history.state) + localStorage.length") == "null0"
    await page.reload()
    await expect(console.list).to_be_visible()
    await expect(page.get_by_role("button", name="Sign out")).to_contain_text(user)


async def test_a_token_signs_in_by_the_form(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """`Bearer ` and blanks around a pasted token do no harm."""
    await page.goto(stand.url)
    await page.get_by_label("Access token").fill(f"  Bearer {stand.token(user)} ")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("navigation", name="Executions")).to_be_visible()


async def test_a_wrong_token_is_refused_with_the_reason(page: Page, stand: WebStand, complaints: Complaints) -> None:
    """Nothing is shown, nothing is kept, and the field has the focus again."""
    complaints.allow(REFUSED)
    await page.goto(stand.url)
    field = page.get_by_label("Access token")
    for wrong, said in ((" ", "Paste a token"), ("wrong token", "not a token"), ("eyJ.wrong.one", "not accepted")):
        await field.fill(wrong)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text(said)
        await expect(field).to_be_focused()
    assert await storage(page) == {}
    await expect(page.get_by_role("navigation")).to_have_count(0)


async def test_a_link_with_a_token_that_is_over_leads_to_the_form(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """It says why, and forgets the token."""
    complaints.allow(REFUSED)
    await page.goto(f"{stand.url}/#token={stand.token(user, ttl=-10)}")
    await expect(page.get_by_role("alert")).to_contain_text("not accepted")
    assert await storage(page) == {}
    assert page.url.rstrip("#") == f"{stand.url}/"


async def test_signing_out_forgets_the_token(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """The form is there again, also after a reload."""
    await ConsolePage(page, stand, user).open()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Access token")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Access token")).to_be_visible()


async def test_a_session_that_ends_is_renewed_in_place(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The user is asked for a newer token, keeps the page, and continues."""
    complaints.allow(REFUSED)
    execution_id = await start(stand, user, "counter", count=25, pause=0.3)
    await page.goto(f"{stand.url}/#token={stand.token(user, ttl=8)}&to=/x/{execution_id}")
    bar = page.get_by_role("alert").filter(has_text="session is ending")
    await bar.get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Access token").fill(stand.token(user))
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(bar).to_have_count(0)
    await expect(page.get_by_text("Completed in")).to_be_visible(timeout=1000 * under_load(15))
    console = ConsolePage(page, stand, user)
    await expect(console.rows.get_by_text("thought ")).to_have_count(25)
    await expect(bar).to_have_count(0)  # every stream has the new token, and nobody is asked again


async def test_who_has_the_cookie_is_signed_in(
    page: Page, context: BrowserContext, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The page cannot read it, starts and follows an execution with it, and a token is asked for without it."""
    cookie = {"name": "runcast_token", "value": stand.token(user), "url": stand.url, "httpOnly": True}
    await context.add_cookies([cookie])
    execution_id = await start(stand, user, "counter", count=3)
    await page.goto(f"{stand.url}/#/x/{execution_id}")
    await expect(page.get_by_text("Completed in")).to_be_visible()
    assert await storage(page) == {}
    await context.clear_cookies()
    await page.reload()
    await expect(page.get_by_label("Access token")).to_be_visible()


async def test_tabs_have_one_session(
    page: Page, context: BrowserContext, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A tab that is opened by a link needs no token, also beside one that answers late and one that has none; who signs
    out is out in all of them, and a tab beside these does not wait for a session."""
    none = await context.new_page()
    await none.goto(stand.url)
    await expect(none.get_by_label("Access token")).to_be_visible()
    await page.add_init_script(BUSY)
    await ConsolePage(page, stand, user).open()
    second = await context.new_page()
    await second.add_init_script(PATIENT)
    await second.goto(f"{stand.url}/#/new")
    await expect(second.get_by_role("button", name="Sign out")).to_contain_text(user)
    await page.get_by_role("button", name="Sign out").click()
    for tab in (page, second):
        await expect(tab.get_by_label("Access token")).to_be_visible()
        assert await storage(tab) == {}
    third = await context.new_page()
    await third.add_init_script(PATIENT)
    await third.goto(stand.url)
    await expect(third.get_by_label("Access token")).to_be_visible()


# --- links that others send ------------------------------------------------------------------------------------------


async def test_a_link_does_not_replace_somebody_without_a_question(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Neither in an open tab nor in one that is loaded: who stays is who they were; who agrees is the other."""
    console = await ConsolePage(page, stand, user).open()
    signed_in = page.get_by_role("button", name="Sign out")
    dialog = page.get_by_role("dialog", name="Sign in with this link?")
    other = stand.token(user + "-other")
    for follow in (f"location.hash = '#token={other}&to=/new'", f"location.href = '/?1#token={other}'"):
        await page.evaluate(f"void ({follow})")
        await expect(dialog).to_contain_text(f"{user}-other")
        await expect(dialog).to_contain_text(f"You are {user} now")
        assert "token" not in page.url
        await dialog.get_by_role("button", name="Stay").click()
        await expect(dialog).to_have_count(0)
        await expect(signed_in).to_contain_text(user)
        await expect(signed_in).not_to_contain_text(f"{user}-other")
        assert await storage(page) == {"runcast:token": await own_token(page)}
    await page.evaluate(f"void (location.hash = '#token={other}')")
    await dialog.get_by_role("button", name=f"Sign in as {user}-other").click()
    await expect(signed_in).to_contain_text(f"{user}-other")
    await expect(console.list).to_be_visible()


async def own_token(page: Page) -> str:
    """The token that is kept, which is still not the other's."""
    token = (await storage(page))["runcast:token"]
    assert "other" not in str(jwt.decode(token, options={"verify_signature": False})["sub"])
    return token


async def test_many_links_ask_once(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """A page that sends links one after the other cannot pile up questions; Escape is no."""
    await ConsolePage(page, stand, user).open()
    for number in range(5):
        await page.evaluate(f"void (location.hash = '#token={stand.token(f'{user}-{number}')}')")
    await expect(page.get_by_role("dialog")).to_have_count(1)
    await expect(page.get_by_role("dialog")).to_contain_text(f"{user}-0")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_role("button", name="Sign out")).to_contain_text(user)
    for number, replaced in ((5, True), (6, False)):
        await page.evaluate(f"void (location.hash = '#token={stand.token(f'{user}-{number}')}')")
        await expect(page.get_by_role("dialog")).to_contain_text(f"{user}-{number}")
        if replaced:  # by a page of its own person: the question is gone with the old one, and the next is asked
            await page.evaluate(f"void (location.hash = '#token={stand.token(user)}')")
            await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_newer_token_of_the_same_person_is_taken(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """No question, as only the expiry of the token changes."""
    await ConsolePage(page, stand, user).open()
    newer = stand.token(user, ttl=7200)
    await page.evaluate(f"void (location.hash = '#token={newer}')")
    await page.wait_for_function("token => sessionStorage.getItem('runcast:token') === token", arg=newer)
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_elsewhere_than_on_this_machine_a_link_always_asks(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """At an address that others can reach, nobody is signed in by having followed a link."""
    complaints.allow("Cross-Origin-Opener-Policy header has been ignored")  # as everywhere without TLS
    address = stand.url.replace("127.0.0.1", "console.runcast.test")
    dialog = page.get_by_role("dialog", name="Sign in with this link?")
    await page.goto(f"{address}/#token={stand.token(user)}")
    await expect(dialog).to_contain_text(user)
    assert await storage(page) == {}
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_label("Access token")).to_be_visible()
    assert await storage(page) == {}
    await page.evaluate(f"void (location.hash = '#token={stand.token(user)}')")
    await dialog.get_by_role("button", name=f"Sign in as {user}").click()
    await expect(page.get_by_role("button", name="Sign out")).to_contain_text(user)


async def test_odd_links_harm_nothing(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """A link without a valid token is ignored, and removed from the address."""
    await ConsolePage(page, stand, user).open()
    for odd in ("%", "", "%00", "a%20b", "x&to=%", "x.bnVsbA.x", "%E4%A4"):
        await page.evaluate("odd => void (location.hash = '#token=' + odd)", odd)
        await page.wait_for_function("!location.hash.includes('token')")
        if odd.startswith("x"):
            await page.get_by_role("button", name="Stay").click()
    await expect(page.get_by_role("button", name="Sign out")).to_contain_text(user)
    await page.evaluate("sessionStorage.clear()")
    await page.goto(f"{stand.url}/?odd#token=%")
    await expect(page.get_by_label("Access token")).to_be_visible()
