const draw = () => {
  let spec = null;
  try { spec = JSON.parse(props.value); } catch { return; }
  const note = element.querySelector('.map-note');
  const box = element.querySelector('.map-plot');
  if (!spec || !box) return;
  note.textContent = spec.note;
  box.setAttribute('aria-label', spec.label);
  const facts = element.querySelector('.map-facts');
  facts.replaceChildren(...spec.facts.map(fact => {
    const item = document.createElement('li');
    item.textContent = fact;
    return item;
  }));
  box.hidden = !spec.figure;
  if (!spec.figure) return;
  if (!window.Plotly) { load(); return; }
  const {data: [scores], layout} = spec.figure;
  // A probe without a score can be run too: a neutral layer under the scores takes its clicks.
  const ground = {
    type: 'heatmap', x: scores.x, y: scores.y, z: scores.z.map(row => row.map(() => 1)),
    customdata: scores.customdata, showscale: false, xgap: scores.xgap, ygap: scores.ygap,
    colorscale: [[0, 'rgba(128,128,128,0.22)'], [1, 'rgba(128,128,128,0.22)']],
    text: scores.z.map(row => row.map(v => v === null ? 'run' : '')), texttemplate: '%{text}',
    hovertemplate: 'layer %{y}, sigma %{x}<extra>click to run</extra>',
  };
  scores.colorscale = 'Viridis';
  scores.reversescale = spec.lowIsBetter;
  scores.hovertemplate = scores.hovertemplate.replace('<extra></extra>', '<extra>click to run</extra>');
  const known = scores.z.some(row => row.some(v => v !== null));
  Plotly.react(box, known ? [ground, scores] : [ground], {
    ...layout, height: 120 + 52 * scores.y.length,
    xaxis: {...layout.xaxis, fixedrange: true, showgrid: false},
    yaxis: {...layout.yaxis, fixedrange: true, showgrid: false},
  }, {displayModeBar: false, responsive: true});
  box.removeAllListeners('plotly_click');
  box.on('plotly_click', event => {
    const [layer, sigma] = scores.customdata[scores.y.indexOf(event.points[0].y)]
      [scores.x.indexOf(event.points[0].x)];
    trigger('cell', {layer, sigma});
  });
};
const load = () => {
  let script = document.getElementById('plotly-script');
  if (!script) {
    script = document.createElement('script');
    script.id = 'plotly-script';
    script.src = 'static/plotly.min.js';
    document.head.append(script);
  }
  script.addEventListener('load', draw);
};
// A map drawn while its tab is hidden has no width; it is fitted once it is seen.
new ResizeObserver(() => {
  const box = element.querySelector('.map-plot');
  if (window.Plotly && box && box.data && box.offsetWidth) Plotly.Plots.resize(box);
}).observe(element);
watch('value', draw);
draw();
