// Gradio ends the stream of a page's events once none of them is pending. An event that the page
// joins at just that moment is not in the stream any more, but the page, which has yet to hear of
// the end, opens no other one: nothing of that event is ever seen, and Run looks dead. So a page
// hears that it has joined only when its stream has told of the event, or when it has let go of the
// stream, after which it opens the next one for that event.
{
  const PATIENCE = 30_000; // milliseconds, for a server that does not tell of each event at once
  const ask = window.fetch;
  let stream = {over: true};

  const follow = signal => {
    const opened = {over: false, told: new Set(), waiting: new Map()};
    signal.addEventListener('abort', () => {
      opened.over = true;
      for (const done of opened.waiting.values()) done();
    });
    return opened;
  };

  const listen = ({told, waiting}) => {
    const decoder = new TextDecoder();
    let rest = '';
    return new TransformStream({transform(chunk, out) {
      rest += decoder.decode(chunk, {stream: true});
      for (const [, event] of rest.matchAll(/"event_id":\s*"(\w+)"/g)) {
        told.add(event);
        waiting.get(event)?.();
      }
      rest = rest.slice(-64); // a name may come in two pieces
      out.enqueue(chunk);
    }});
  };

  const heard = ({over, told, waiting}, event) => new Promise(done => {
    if (over || told.has(event)) return done();
    waiting.set(event, done);
    setTimeout(done, PATIENCE);
  });

  window.fetch = async (what, ...options) => {
    const {pathname} = new URL(what?.url ?? what, document.baseURI);
    if (pathname.endsWith('/queue/data') && what.signal) {
      const opened = stream = follow(what.signal);
      const answer = await ask(what, ...options);
      return answer.body ? new Response(answer.body.pipeThrough(listen(opened)), answer) : answer;
    }
    const answer = await ask(what, ...options);
    if (pathname.endsWith('/queue/join') && answer.ok)
      await heard(stream, (await answer.clone().json()).event_id);
    return answer;
  };
}
