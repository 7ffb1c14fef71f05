"""Run pressed in the moments in which a page could miss what follows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from playwright.sync_api import TimeoutError as PlaywrightTimeout
from visitor import ALL_CONTROLS, MARK_OLD, Visitor


def start_as_the_stream_ends(visitor: Visitor, ask: Callable[[], None]) -> None:
    """Have Run pressed when the server ends the page's stream, a while before the page knows.

    The page does not open another stream for what it believes to be in the one it has.

    Args:
        ask: something that makes the page ask one thing, whose answer ends a stream.
    """
    visitor.page.evaluate(MARK_OLD)
    visitor.page.evaluate(
        """() => {
          const fetchOfPage = window.fetch;
          window.fetch = async (what, ...rest) => {
            const answer = await fetchOfPage(what, ...rest);
            if (!String(what.url ?? what).includes('/queue/data')) return answer;
            window.fetch = fetchOfPage;
            const text = new TextDecoder();
            return new Response(answer.body.pipeThrough(new TransformStream({
              async transform(chunk, out) {
                if (text.decode(chunk, {stream: true}).includes('"close_stream"')) {
                  window.runPressed = true;
                  document.querySelector('#run').click();
                  await new Promise(done => setTimeout(done, 1000));
                }
                out.enqueue(chunk);
              },
            })), answer);
          };
        }"""
    )
    for _ in range(3):  # the first may be answered in a stream that was open before
        ask()
        with suppress(PlaywrightTimeout):
            visitor.page.wait_for_function("window.runPressed", timeout=20_000)
            return
    raise AssertionError("no stream has ended")


def start_and_look_away(visitor: Visitor, seconds: float) -> None:
    """Press Run; once the server is asked, the page does nothing else for some seconds.

    What the server says in that time, the page then hears all at once. It takes itself for a
    hidden one as long, which leaves it no pause between two messages.
    """
    visitor.page.evaluate(MARK_OLD)
    visitor.page.evaluate(
        """([controls, seconds]) => {
          const fetchOfPage = window.fetch;
          window.fetch = (what, options) => {
            const answer = fetchOfPage(what, options);
            const asks = String(what).includes('/queue/join');
            if (asks && JSON.parse(options.body).data.length === controls) {
              window.fetch = fetchOfPage;
              setTimeout(() => {
                const hidden = {get: () => 'hidden', configurable: true};
                Object.defineProperty(document, 'visibilityState', hidden);
                const end = performance.now() + 1000 * seconds;
                while (performance.now() < end);
                setTimeout(() => delete document.visibilityState, 1000);
              });
            }
            return answer;
          };
          document.querySelector('#run').click();
        }""",
        [ALL_CONTROLS, seconds],
    )


def start_and_stop(visitor: Visitor) -> str:
    """Press Run, and Stop as soon as it can be pressed; how the run ended.

    Inside the page, because drawing in software can hold this process off for longer than a
    run of the small model takes.
    """
    visitor.page.evaluate(MARK_OLD)
    visitor.page.evaluate(
        """() => new Promise((done, fail) => {
          const stop = document.querySelector('#stop');
          const timer = setInterval(() => {
            if (stop.disabled) return;
            clearInterval(timer);
            stop.click();
            done();
          }, 5);
          setTimeout(() => fail(Error('Stop could not be pressed')), 60_000);
          document.querySelector('#run').click();
        })"""
    )
    return visitor.ended()
