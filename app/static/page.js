// The viewer asks GitHub for its newest release at every start. The page's policy forbids that, which
// leaves red lines in the console: answered here, it is not even tried.
const RELEASES = 'https://api.github.com/';
const fetchOfPage = window.fetch;
window.fetch = (what, ...rest) =>
  String(what?.url ?? what).startsWith(RELEASES)
    ? Promise.resolve(new Response('{}', {status: 404}))
    : fetchOfPage(what, ...rest);

// The viewer keeps every key, Tab too: without this nobody leaves it by keyboard.
window.addEventListener('keydown', event => {
  if (event.key === 'Tab' && event.target.closest?.('#viewer')) event.stopImmediatePropagation();
}, true);

// Thumbnails are called "Thumbnail 1 of 12" by Gradio; a screen reader should hear the clip's name.
new MutationObserver(() => {
  for (const thumbnail of document.querySelectorAll('#gallery .thumbnail-item')) {
    const name = thumbnail.querySelector('img')?.alt;
    if (name && thumbnail.ariaLabel !== name) thumbnail.ariaLabel = name;
  }
  const canvas = document.querySelector('#viewer canvas');
  if (canvas && !canvas.ariaLabel) {
    canvas.role = 'img';
    canvas.ariaLabel = 'Predicted and reference points, cameras, input, depth and error in 3D';
  }
}).observe(document, {childList: true, subtree: true});
